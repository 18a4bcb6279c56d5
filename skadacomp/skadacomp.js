/**
 * A text classifier out of one file, in a browser: what FrozenClassifier does, with no server.
 *
 *   import { Classifier } from "./skadacomp.js";
 *
 *   const model = await Classifier.fetch("classifier.safetensors");
 *   model.predict("Shares fell after the bank's loss");
 *
 * It reads what `skadacomp.freeze(pipe).save(path)` wrote. Words are looked up and codes unpacked
 * as _vocabulary.py and _compressed.py do, so those say what each tensor means.
 */

const FORMAT = 1; // the newest that is read here; _format.py says what each is
const BLOCK = 32; // words of one block of the vocabulary
const SHARED_NONE = 0xf5; // from here on, bytes part two words and tell how many bytes they share
const MOST_EXPANDED = 64; // bytes that one symbol of the vocabulary may stand for
const WORD = /[\p{L}\p{N}_]{2,}/gu; // as Python's \b\w\w+\b, which scikit-learn takes for words
const VIEWS = { F32: Float32Array, F16: Uint16Array, I8: Int8Array, U8: Uint8Array };
const PYTHON_TYPES = { F32: "<f4", F16: "<f2", I8: "|i1", U8: "|u1" };
const DESCRIBED = {
  pooling: ["mean", "sum"],
  lowercase: [true, false],
  link: ["none", "sigmoid", "softmax"],
};

/** A file that cannot be what FrozenClassifier.save wrote, or is of a newer format. */
export class FormatError extends Error {
  name = "FormatError";
}

function check(holds, message) {
  if (!holds) throw new FormatError(message);
}

/** A fitted pipeline of compressor and linear classifier, frozen. */
export class Classifier {
  #tensors;
  #described; // classes, pooling, lowercase, link
  #slots; // Map of each word to its slot
  #groups; // stored rows of each code length
  #storedWidth; // bits that say which stored row a slot has; null where each has its own
  #nCodewords;

  /**
   * @param {ArrayBuffer} file what FrozenClassifier.save wrote
   * @throws {FormatError} if it is damaged, something else, or of a newer format
   */
  constructor(file) {
    try {
      this.#read(parsed(file));
    } catch (error) {
      // A header can be wrong in more ways than are worth a message of their own.
      throw error instanceof FormatError
        ? error
        : new FormatError(`the file cannot be read: ${error.message}`);
    }
  }

  #read({ tensors, metadata }) {
    const [nCodebooks, nCodewords] = shapeOf(tensors, "codebooks", 3);
    this.#tensors = tensors;
    this.#nCodewords = nCodewords;
    this.#described = description(metadata);
    checkWeights(tensors, this.#described.classes.length, nCodebooks * nCodewords + 1);

    const lengths = integers(metadata, "candidates");
    const counts = integers(metadata, "counts");
    const stored = "stored" in metadata ? integers(metadata, "stored") : counts;
    check(
      lengths.length === counts.length && counts.length === stored.length,
      "counts do not fit candidates",
    );
    check(
      lengths.every((length) => length <= nCodebooks),
      "code lengths exceed the codebooks",
    );
    this.#groups = groups(lengths, counts, stored, bitsFor(nCodewords));
    const last = this.#groups.at(-1) ?? { end: 0, lastSlot: 0, lastRow: 0 };
    check(shapeOf(tensors, "codes", 1)[0] === last.end, "codes do not fit counts");
    this.#storedWidth = "stored" in metadata ? bitsFor(last.lastRow) : null;
    if (this.#storedWidth !== null)
      checkPacked(tensors, "stored_rows", last.lastSlot, this.#storedWidth);
    this.#slots = vocabulary(tensors, last.lastSlot);
  }

  /**
   * Fetch and read a file.
   *
   * @param {string | URL} url where FrozenClassifier.save's file lies
   * @returns {Promise<Classifier>}
   * @throws {FormatError} as the constructor
   * @throws {Error} if the file cannot be fetched
   */
  static async fetch(url) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url} cannot be fetched: status ${response.status}`);
    return new Classifier(await response.arrayBuffer());
  }

  /** The classes, in the order of their scores; text, numbers or booleans, as in training. */
  get classes() {
    return [...this.#described.classes];
  }

  /** How many words have a code; all others are skipped. */
  get nWords() {
    return this.#slots.size;
  }

  /**
   * The words of a text: two and more letters, digits or underscores, in lower case if so trained.
   *
   * @param {string} text
   * @returns {string[]}
   */
  split(text) {
    return (this.#described.lowercase ? text.toLowerCase() : text).match(WORD) ?? [];
  }

  /** How many codes a word has; 0 if it is unknown or was dropped. */
  codeLength(word) {
    const slot = this.#slots.get(word);
    return slot === undefined ? 0 : groupOf(this.#groups, slot).length;
  }

  /**
   * Scores of a document, as decision_function gives them.
   *
   * @param {string | string[]} document a text, or its words where they are split in another way
   * @returns {number[]} a single one for two classes, else one for each
   */
  scores(document) {
    const words = typeof document === "string" ? this.split(document) : document;
    const { coef, intercept } = this.#tensors;
    const [nOutputs, nFeatures] = coef.shape;
    const sums = new Array(nOutputs).fill(0);
    let nKnown = 0;
    for (const word of words) {
      const slot = this.#slots.get(word);
      if (slot === undefined) continue;
      nKnown += 1;
      for (const feature of [...this.#features(slot), nFeatures - 1])
        // the last one is the mean vector's
        for (let output = 0; output < nOutputs; output++)
          sums[output] += coef.data[output * nFeatures + feature];
    }
    const share = this.#described.pooling === "mean" ? 1 / Math.max(nKnown, 1) : 1;
    return sums.map((sum, output) => sum * share + intercept.data[output]);
  }

  /**
   * The class of a document.
   *
   * @param {string | string[]} document as in `scores`
   */
  predict(document) {
    const scores = this.scores(document);
    return this.#described.classes[
      scores.length === 1 ? Number(scores[0] > 0) : scores.indexOf(Math.max(...scores))
    ];
  }

  /**
   * The probability of each class.
   *
   * @param {string | string[]} document as in `scores`
   * @returns {number[]} in the order of `classes`
   * @throws {Error} if the classifier was frozen without probabilities
   */
  probabilities(document) {
    if (this.#described.link === "none")
      throw new Error("this classifier was frozen without probabilities");
    const scores = this.scores(document);
    if (scores.length === 1) scores.unshift(0);
    const highest = Math.max(...scores);
    const powers = scores.map((score) => Math.exp(score - highest));
    const total = powers.reduce((sum, power) => sum + power);
    return powers.map((power) => power / total);
  }

  /** Which code features a word has: one for each of its codes. */
  #features(slot) {
    const { codes, stored_rows } = this.#tensors;
    const { firstRow, lastRow, length, begin, end } = groupOf(this.#groups, slot);
    const row =
      this.#storedWidth === null ? slot : unpacked(stored_rows.data, this.#storedWidth, slot);
    check(row >= firstRow && row < lastRow, "a row is stored with those of another code length");
    const packed = codes.data.subarray(begin, end);
    const width = bitsFor(this.#nCodewords);
    return Array.from({ length }, (_, book) => {
      const code = unpacked(packed, width, (row - firstRow) * length + book);
      check(code < this.#nCodewords, `a code is out of ${this.#nCodewords} codewords`);
      return book * this.#nCodewords + code;
    });
  }
}

// ---------------------------------------------------------------------------------------------
// The file

/** Tensors and metadata of a safetensors file that is whole and of a format that is known. */
function parsed(file) {
  check(file.byteLength >= 8, `the file has ${file.byteLength} bytes, too few for any`);
  const begin = 8 + Number(new DataView(file).getBigUint64(0, true));
  check(begin <= file.byteLength, "this is no safetensors file, or its header is cut off");
  const { __metadata__: metadata = {}, ...entries } = json(
    new TextDecoder().decode(file.slice(8, begin)),
    "header",
  );
  checkFormat(metadata);
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: offsets }] of Object.entries(entries)) {
    const view = VIEWS[dtype];
    check(
      view && Array.isArray(shape) && Array.isArray(offsets),
      `tensor ${name} is not of a known kind`,
    );
    const [from, to] = offsets.map((offset) => begin + offset);
    check(
      from <= to && to <= file.byteLength,
      `the file is cut off: tensor ${name} ends at byte ${to}, the file at ${file.byteLength}`,
    );
    const size = shape.reduce((product, side) => product * side, 1);
    check(size * view.BYTES_PER_ELEMENT === to - from, `tensor ${name} does not fill its bytes`);
    tensors[name] = { dtype, shape, data: new view(file.slice(from, to)) };
  }
  const found = checksum(tensors, metadata);
  check(
    found === (metadata.crc32 ?? found),
    `the file is damaged: its checksum is ${found}, not ${metadata.crc32}`,
  );
  return { tensors, metadata };
}

function json(text, what) {
  try {
    const found = JSON.parse(text);
    check(found !== null && typeof found === "object", "not an object");
    return found;
  } catch (error) {
    throw new FormatError(`the ${what} cannot be read: ${error.message}`);
  }
}

function checkFormat({ format, counts }) {
  check(
    /^\d{1,9}$/.test(format) && counts !== undefined,
    "this is not the file of a FrozenClassifier",
  );
  check(
    Number(format) <= FORMAT,
    `format ${format} is newer than format ${FORMAT}, the newest that this script reads: ` +
      "take the skadacomp.js of the release that wrote the file",
  );
  check(Number(format) === FORMAT, `format ${format} is unknown`);
}

/** CRC-32 of metadata and tensors, as _format.py makes it. */
function checksum(tensors, metadata) {
  const said = Object.entries(metadata)
    .filter(([key]) => key !== "crc32")
    .sort(byName);
  const pairs = said.map((pair) => `[${pair.map(pythonJson).join(", ")}]`).join(", ");
  let sum = crc32(encoded(`[${pairs}]`), 0);
  for (const [name, { dtype, shape, data }] of Object.entries(tensors).sort(byName)) {
    const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
    sum = crc32(encoded(`${name} ${PYTHON_TYPES[dtype]} ${tuple}`), sum);
    sum = crc32(new Uint8Array(data.buffer), sum);
  }
  return sum.toString(16).padStart(8, "0");
}

const byName = ([one], [other]) => (one < other ? -1 : 1);
const encoded = (text) => new TextEncoder().encode(text);

/** JSON of a text as Python writes it, in ASCII alone. */
function pythonJson(text) {
  const escaped = (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(text).replace(/[\x7f-\uffff]/g, escaped);
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1;
  return byte;
});

function crc32(bytes, sum) {
  sum = ~sum;
  for (const byte of bytes) sum = CRC_TABLE[(sum ^ byte) & 0xff] ^ (sum >>> 8);
  return ~sum >>> 0;
}

function integers(metadata, key) {
  const numbers = (metadata[key] ?? "").split(" ");
  check(
    numbers.every((number) => /^\d{1,10}$/.test(number)),
    `${key} must be integers, not ${metadata[key]}`,
  );
  return numbers.map(Number);
}

function description({ classifier }) {
  check(
    classifier !== undefined,
    "there is no classifier in this file: write it with skadacomp.freeze(pipe).save(path)",
  );
  const found = json(classifier, "classifier");
  const known = Object.entries(DESCRIBED).every(([key, choices]) => choices.includes(found[key]));
  check(
    known && Array.isArray(found.classes) && found.classes.length > 1,
    `the classifier cannot be ${classifier}`,
  );
  return found;
}

// ---------------------------------------------------------------------------------------------
// Tensors

function shapeOf(tensors, name, nDimensions) {
  const shape = tensors[name]?.shape;
  check(
    shape?.length === nDimensions,
    `tensor ${name} is missing, or not of ${nDimensions} dimensions`,
  );
  return shape;
}

function checkWeights(tensors, nClasses, nFeatures) {
  const nOutputs = nClasses === 2 ? 1 : nClasses;
  const [rows, columns] = shapeOf(tensors, "coef", 2);
  const fits =
    rows === nOutputs && columns === nFeatures && shapeOf(tensors, "intercept", 1)[0] === nOutputs;
  check(fits, `coef and intercept do not fit ${nClasses} classes and ${nFeatures} code features`);
  const finite = [tensors.coef, tensors.intercept].every(({ data }) => data.every(Number.isFinite));
  check(finite, "coef and intercept must be finite");
}

function checkPacked(tensors, name, nValues, width) {
  const fits = shapeOf(tensors, name, 1)[0] === nBytes(nValues, width);
  check(fits, `tensor ${name} does not hold ${nValues} numbers of ${width} bits`);
}

/** Bits that tell so many things apart. */
const bitsFor = (n) => (n > 1 ? 32 - Math.clz32(n - 1) : 0);
const nBytes = (nValues, width) => Math.ceil((nValues * width) / 8);

/** One of the numbers of `width` bits that lie side by side, lowest bit first. */
function unpacked(packed, width, position) {
  const bit = position * width;
  let byte = Math.floor(bit / 8);
  let value = packed[byte] >> (bit % 8);
  for (let read = 8 - (bit % 8); read < width; read += 8) value += packed[++byte] * 2 ** read;
  return width ? value % 2 ** width : 0;
}

/** Where slots and rows of each code length lie, in the order of their lengths. */
function groups(lengths, counts, stored, width) {
  const found = [];
  let [firstSlot, firstRow, begin] = [0, 0, 0];
  lengths.forEach((length, number) => {
    if (length === 0 || counts[number] === 0) return; // dropped words hold nothing
    const [lastSlot, lastRow] = [firstSlot + counts[number], firstRow + stored[number]];
    const end = begin + nBytes(stored[number] * length, width);
    found.push({ length, firstRow, lastSlot, lastRow, begin, end });
    [firstSlot, firstRow, begin] = [lastSlot, lastRow, end];
  });
  return found;
}

const groupOf = (groups, slot) => groups.find(({ lastSlot }) => slot < lastSlot);

// ---------------------------------------------------------------------------------------------
// Words

/** Slot of each word, as a Map. */
function vocabulary(tensors, nWords) {
  check("words" in tensors, "the table holds no words, only row ids");
  const { words, word_offsets: offsets, word_slots: slots } = tensors;
  const [nText] = shapeOf(tensors, "words", 1);
  const offsetWidth = bitsFor(nText + 1);
  const nBlocks = Math.ceil(nWords / BLOCK);
  checkPacked(tensors, "word_offsets", nBlocks, offsetWidth);
  checkPacked(tensors, "word_slots", nWords, bitsFor(nWords));
  const symbols = expansions(
    shapeOf(tensors, "word_merges", 2)[1] === 3 ? tensors.word_merges.data : [],
  );
  const begins = Array.from({ length: nBlocks }, (_, block) =>
    unpacked(offsets.data, offsetWidth, block),
  );
  begins.push(nText);
  const slotOf = new Map();
  let rank = 0;
  for (let block = 0; block < nBlocks; block++) {
    check(begins[block] <= begins[block + 1], "blocks of the vocabulary overlap");
    const text = words.data.subarray(begins[block], begins[block + 1]);
    for (const word of wordsOf(text, symbols))
      slotOf.set(word, unpacked(slots.data, bitsFor(nWords), rank++));
  }
  check(rank === nWords, `the vocabulary holds ${rank} words, not ${nWords}`);
  return slotOf;
}

/** The bytes that each symbol stands for. */
function expansions(merges) {
  const symbols = Array.from({ length: 256 }, (_, symbol) => [symbol]);
  for (let at = 0; at < merges.length; at += 3) {
    const expanded = [...symbols[merges[at + 1]], ...symbols[merges[at + 2]]];
    check(expanded.length <= MOST_EXPANDED, "a symbol of the vocabulary expands to too many bytes");
    symbols[merges[at]] = expanded;
  }
  return symbols;
}

/** The words of one block, each of which says what it shares with the one before. */
function* wordsOf(text, symbols) {
  const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  const word = [];
  let shared = -1; // bytes to take over, while a separator is read
  for (const symbol of text)
    for (const byte of symbols[symbol]) {
      if (byte >= SHARED_NONE) {
        if (shared < 0) yield utf8.decode(Uint8Array.from(word));
        shared = Math.max(shared, 0) + byte - SHARED_NONE;
        continue;
      }
      if (shared >= 0) word.length = Math.min(word.length, shared);
      shared = -1;
      word.push(byte);
    }
  yield utf8.decode(Uint8Array.from(word));
}
