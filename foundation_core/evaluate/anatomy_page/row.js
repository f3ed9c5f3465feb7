// A row as the reader changes it: typed, hidden and appended tokens, or the patches of a sample.

class Row {
  /** @param described what the model says of the row. */
  constructor(described, tokenizer) {
    Object.assign(this, { described, tokenizer, typed: [], hidden: new Set(), sample: 0 });
  }

  get isText() { return !this.described.samples.length; }
  get sampled() { return this.described.samples[this.sample]; }

  /** What stands in the row, one for each vector: its id (of a patch, its number), and which typed tokens it stands for. */
  get shown() {
    if (!this.isText) return this.sampled.patches.map((_, id) => ({ id, places: [] }));
    return [...this.described.begins.map((id) => ({ id, places: [] })), ...this.rendered()].slice(0, this.described.most_tokens);
  }

  /** What the model is given. */
  get input() { return this.isText ? this.shown.map(({ id }) => id) : this.sampled.patches; }

  /** How many tokens there are, those that are not shown too. */
  get length() { return this.isText ? this.described.begins.length + this.rendered().length : this.sampled.patches.length; }

  /** The text, with hidden tokens spelt as what hides them. */
  get text() { return this.tokenizer.decode(this.rendered().map(({ id }) => id)); }

  rendered() {
    const { ids, spans } = this.described.hides, found = [];
    this.typed.forEach((id, place) => {
      const last = found.at(-1), isHidden = this.hidden.has(place);
      if (isHidden && spans && last?.isHidden) last.places.push(place);
      else found.push({ id, places: [place], isHidden });
    });
    const free = ids.filter((id) => !spans || !this.typed.includes(id));
    found.filter((each) => each.isHidden).forEach((each, number) => { each.id = free[spans ? number : 0]; });
    return found;
  }

  type(text) {
    this.typed = this.tokenizer.encodeTyped(text);
    this.hidden.clear();
  }

  /** Whether one more place can be hidden, or this one shown again. */
  canHide({ places, isHidden }) {
    const { ids, spans } = this.described.hides;
    if (!ids.length || !places.length) return false;
    return isHidden || !spans || this.rendered().filter((each) => each.isHidden).length + 1 <= ids.length - this.sentinelsTyped();
  }

  sentinelsTyped() { return this.typed.filter((id) => this.described.hides.ids.includes(id)).length; }

  /** Hides a place, or shows again what is hidden there. */
  hide({ places, isHidden }) {
    for (const place of places) isHidden ? this.hidden.delete(place) : this.hidden.add(place);
  }

  /** Puts a token where one is hidden. */
  fill({ places }, id) {
    for (const place of places) this.hidden.delete(place);
    this.typed.splice(places[0], places.length, id);
  }

  /** Ends the row behind its token t, with one more. */
  append(t, id) {
    const places = this.shown.slice(0, t + 1).flatMap((each) => each.places);
    this.typed = [...this.typed.slice(0, places.length), id];
  }
}
