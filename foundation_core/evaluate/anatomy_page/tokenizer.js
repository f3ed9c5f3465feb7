// Byte-level tokenizers: text -> words -> bytes -> tokens -> ids.

/** One printable character for each byte, as the vocabulary spells them: printable bytes stand for themselves. */
function byteCharacters() {
  const printable = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return count(256).map((byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

/** What cuts a spelt word into tokens: `(characters) => tokens`. */
const CUTS = {
  /** The pair that was learned first is joined first, until none is left. */
  BPE: ({ merges }) => {
    const ranks = new Map(merges.map(([left, right], rank) => [`${left} ${right}`, rank]));
    return (characters) => {
      const parts = [...characters];
      for (;;) {
        let best = Infinity, place = -1;
        for (let i = 0; i + 1 < parts.length; i++) {
          const rank = ranks.get(`${parts[i]} ${parts[i + 1]}`);
          if (rank < best) [best, place] = [rank, i];
        }
        if (place < 0) return parts;
        parts.splice(place, 2, parts[place] + parts[place + 1]);
      }
    };
  },
  /** Of all ways to cut the word, the most probable one: the best way to each place, from left to right. */
  Unigram: ({ scores }, tokens) => {
    const scoreOf = new Map(tokens.map((token, id) => [token, scores[id]]));
    const longest = Math.max(...tokens.map((token) => Array.from(token).length));
    return (characters) => {
      const best = [{ score: 0, from: 0 }];
      characters.forEach((_, from) => {
        for (let end = from + 1; end <= Math.min(from + longest, characters.length); end++) {
          const score = best[from].score + scoreOf.get(characters.slice(from, end).join(""));
          if (score > (best[end]?.score ?? -Infinity)) best[end] = { score, from };
        }
      });
      const parts = [];
      for (let end = characters.length; end > 0; end = best[end].from) parts.unshift(characters.slice(best[end].from, end).join(""));
      return parts;
    };
  },
};

class Tokenizer {
  /** @param described patterns of words, what cuts words, tokens by id, ids of special tokens by how they are typed. */
  constructor(described) {
    // What a space is, is Unicode's to say: JavaScript's \s differs from it by two characters.
    const asUnicode = (pattern) => pattern.replaceAll("\\s", "\\p{White_Space}").replaceAll("\\S", "\\P{White_Space}");
    this.patterns = described.patterns.map((pattern) => new RegExp(asUnicode(pattern), "gu"));
    this.tokens = described.tokens;
    this.special = new Map(Object.entries(described.special));
    this.ids = new Map(described.tokens.map((token, id) => [token, id]));
    this.cut = CUTS[described.cut.kind](described.cut, described.tokens);
    this.characters = byteCharacters();
    this.bytes = new Map(this.characters.map((character, byte) => [character, byte]));
  }

  /** The ids of a text, in which nothing is special. */
  encode(text) {
    const words = this.patterns.reduce((words, pattern) => words.flatMap((word) => split(word, pattern)), text ? [text] : []);
    const spelt = words.map((word) => Array.from(new TextEncoder().encode(word), (byte) => this.characters[byte]));
    return spelt.flatMap((characters) => this.cut(characters)).map((token) => this.ids.get(token));
  }

  /** The ids of what a reader typed: a special token that is spelt out is that token. */
  encodeTyped(text) {
    const names = [...this.special.keys()].map((name) => name.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
    if (!names.length) return this.encode(text);
    const parts = split(text, new RegExp(names.join("|"), "gu"));
    return parts.flatMap((part) => (this.special.has(part) ? [this.special.get(part)] : this.encode(part)));
  }

  /** The text of some ids; a special token is spelt out. */
  decode(ids) {
    const bytes = ids.flatMap((id) => {
      const characters = Array.from(this.tokens[id]);
      const plain = characters.every((character) => this.bytes.has(character));
      return plain ? characters.map((character) => this.bytes.get(character)) : [...new TextEncoder().encode(this.tokens[id])];
    });
    return new TextDecoder().decode(new Uint8Array(bytes));
  }
}

/** What a pattern finds, and what lies between. */
function split(text, pattern) {
  const pieces = [];
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    if (found.index > end) pieces.push(text.slice(end, found.index));
    pieces.push(found[0]);
    end = found.index + found[0].length;
  }
  if (end < text.length) pieces.push(text.slice(end));
  return pieces;
}
