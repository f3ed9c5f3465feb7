// The page: what is chosen, and who draws it.
const described = JSON.parse(find("described").textContent);
const model = new Tensors(find("tensors").textContent.trim()).fill({ rows: described.rows });
const tokenizer = new Tokenizer(described.tokenizer);

/** Every residual of the model whose branch is of a kind, with its place. */
const residuals = (kind) => model.rows.flatMap((row, r) => row.blocks.flatMap((block, b) => block.flatMap(({ branch, reads }, part) =>
  (branch.kind === kind ? [{ row: r, block: b, part, reads, keys: reads === "memory" ? r - 1 : r, heads: branch.heads }] : []))));
const attentions = residuals("attention");
const routers = Array.from(Map.groupBy(residuals("experts"), ({ row }) => row), ([row, blocks]) => ({ row, blocks }));

const state = {
  language: navigator.language.startsWith("es") ? "es" : "en",
  theme: matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light",
  rows: model.rows.map((row) => new Row(row, tokenizer)), tokens: model.rows.map(() => Infinity), prefix: 1, traces: null,
  attention: Math.max(0, attentions.findIndex(({ reads }) => reads === "memory")), head: 0, shown: "weight",
};
const SECTIONS = [drawRows, drawHeads, drawMap, drawReading, drawExperts, drawAnswer];

function drawWords() {
  document.documentElement.lang = state.language;
  document.documentElement.dataset.theme = state.theme;
  document.title = say("title");
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = say(element.dataset.word);
  for (const button of document.querySelectorAll("[data-language]")) button.setAttribute("aria-pressed", button.dataset.language === state.language);
  for (const button of document.querySelectorAll("[data-shown]")) button.setAttribute("aria-pressed", button.dataset.shown === state.shown);
  find("theme").title = say("theme");
  find("theme").setAttribute("aria-label", say("theme"));
  find("model-line").textContent = [
    say("parameters", whole(described.parameters)),
    ...model.rows.map(({ name, blocks }, r) => say(`shape_${name}`, blocks.length, attentions.find(({ row }) => row === r).heads)),
    say("vocabulary", whole(tokenizer.tokens.length)),
    ...model.rows.filter(({ stem }) => stem.runs).map(({ stem }) => say("runs", stem.runs.lengths.join(", "))),
  ].join(" · ");
}

function draw() {
  drawWords();
  const isWhole = Boolean(state.traces);
  for (const element of document.querySelectorAll("[data-needs-text]")) element.hidden = !isWhole;
  find("router").hidden = !isWhole || !routers.length;
  if (isWhole) for (const section of SECTIONS) section();
  else state.rows.forEach(({ elements, shown }) => {
    elements.tokens.replaceChildren();
    elements.hide.hidden = true;
    elements.notice.textContent = shown.length ? "" : say("empty");
  });
}

/** Show something else of the same rows. */
function choose(changes) {
  Object.assign(state, changes);
  draw();
}

/** A token of a row asks: if it does not ask in the attention that is shown, in the first one in which it does. */
function ask(r, t) {
  state.tokens[r] = t;
  if (attentions[state.attention].row !== r) state.attention = attentions.findIndex(({ row }) => row === r);
  state.head = Math.min(state.head, attentions[state.attention].heads - 1);
  draw();
}

/** Change the rows, and read them again. */
function change(how) {
  how();
  state.rows.forEach(({ shown, text, isText, elements }, r) => {
    state.tokens[r] = Math.max(0, Math.min(state.tokens[r], shown.length - 1));
    if (isText && elements.text !== document.activeElement) elements.text.value = text;
  });
  state.traces = state.rows.every(({ shown }) => shown.length) ? forward(model, state.rows.map(({ input }) => input), state.prefix) : null;
  draw();
}

/** The reader types: the last token asks. */
const type = (r, text) => change(() => {
  state.rows[r].type(text);
  state.tokens[r] = Infinity;
});

/** What stands in the page for a row. */
function makeRow(row, r) {
  const made = {
    tokens: make("div", { className: row.isText ? "tokens" : "patches", id: `tokens-${row.described.name}` }), hide: make("button", { type: "button", className: "hide" }),
    notice: make("p", { className: "quiet notice" }), told: make("span"), prefix: make("input", { type: "range", min: 1, className: "prefix" }),
    text: make("textarea", { id: `text-${row.described.name}`, rows: model.rows.length > 1 ? 2 : 4, spellcheck: false, autocomplete: "off" }),
  };
  made.text.oninput = () => type(r, made.text.value);
  made.prefix.oninput = () => change(() => { state.prefix = Number(made.prefix.value); });
  made.hide.onclick = () => change(() => row.hide(row.shown[state.tokens[r]]));
  made.samples = row.described.samples.map((_, sample) => {
    const button = make("button", { type: "button", className: "sample" }, String(sample + 1));
    button.onclick = () => change(() => { row.sample = sample; });
    return button;
  });
  const title = model.rows.length > 1 ? [make("h3", {})] : [];
  title.forEach((element) => { element.dataset.word = `row_${row.isText ? row.described.name : "values"}`; });
  row.elements = made;
  const entered = row.isText ? [made.text] : [make("div", { className: "samples" }, ...made.samples)];
  find("rows").append(make("div", { className: "entered" }, ...title, ...entered, make("label", {}, made.prefix, made.told), made.tokens, made.hide, made.notice));
}

/** The example: of an encoder or a source, a word in its middle is hidden, and the target begins to tell it. */
function begin() {
  const [first, second] = state.rows, middle = () => {
    const from = Math.floor(first.shown.length / 2);
    return from + Math.max(0, first.shown.slice(from).findIndex(({ id }) => /\p{L}{2}/u.test(visible(id))));
  };
  if (first.isText) first.type(described.example);
  const { ids } = first.described.hides;
  if (ids.length && first.shown.length) {
    state.tokens[0] = middle();
    first.hide(first.shown[state.tokens[0]]);
    if (second) second.typed = [ids[0]];
  }
  state.prefix = Math.ceil(first.shown.length / 2);
}

state.rows.forEach(makeRow);
find("typed-help").dataset.word = `text_help_${state.rows[0].described.hides.ids.length ? (state.rows[0].described.hides.spans ? "spans" : "mask") : state.rows[0].isText ? "plain" : "values"}`;
find("theme").onclick = () => choose({ theme: state.theme === "dark" ? "light" : "dark" });
for (const button of document.querySelectorAll("[data-language]")) button.onclick = () => choose({ language: button.dataset.language });
for (const button of document.querySelectorAll("[data-shown]")) button.onclick = () => choose({ shown: button.dataset.shown });
change(begin);
