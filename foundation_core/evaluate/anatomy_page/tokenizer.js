// Byte-level byte-pair encoding: text -> pieces -> bytes -> merged pairs -> ids.

/** One printable character for each byte, as the vocabulary spells them: printable bytes stand for themselves. */
function byteCharacters() {
  const printable = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

class BytePairs {
  /** @param described pattern of the pieces, tokens by id, merges in the order in which they were learned. */
  constructor(described) {
    // What a space is, is Unicode's to say: JavaScript's \s differs from it by two characters.
    const pattern = described.pattern.replaceAll("\\s", "\\p{White_Space}").replaceAll("\\S", "\\P{White_Space}");
    this.pieces = new RegExp(pattern, "gu");
    this.tokens = described.tokens;
    this.ids = new Map(described.tokens.map((token, id) => [token, id]));
    this.ranks = new Map(described.merges.map(([left, right], rank) => [`${left} ${right}`, rank]));
    this.characters = byteCharacters();
    this.bytes = new Map(this.characters.map((character, byte) => [character, byte]));
  }

  /** The ids of a text. */
  encode(text) {
    return this.split(text).flatMap((piece) => this.merged(piece)).map((token) => this.ids.get(token));
  }

  /** What the pattern finds, and what lies between. */
  split(text) {
    const pieces = [];
    let end = 0;
    for (const found of text.matchAll(this.pieces)) {
      if (found.index > end) pieces.push(text.slice(end, found.index));
      pieces.push(found[0]);
      end = found.index + found[0].length;
    }
    if (end < text.length) pieces.push(text.slice(end));
    return pieces;
  }

  /** The tokens of a piece: the pair that was learned first is joined first, until none is left. */
  merged(piece) {
    const parts = Array.from(new TextEncoder().encode(piece), (byte) => this.characters[byte]);
    for (;;) {
      let best = Infinity, place = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`);
        if (rank < best) [best, place] = [rank, i];
      }
      if (place < 0) return parts;
      parts.splice(place, 2, parts[place] + parts[place + 1]);
    }
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
