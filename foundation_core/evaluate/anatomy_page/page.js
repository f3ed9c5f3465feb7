// The page: what is chosen, and what is drawn from it.
const described = JSON.parse(document.getElementById("described").textContent);
const model = new Tensors(document.getElementById("tensors").textContent.trim()).fill(described.model);
const pairs = new BytePairs(described.tokenizer);
const SHOWN = 10;
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const state = {
  language: navigator.language.startsWith("es") ? "es" : "en", theme: dark ? "dark" : "light",
  text: described.example, block: 0, head: 0, token: Infinity, shown: "weight",
};

const find = (id) => document.getElementById(id);
const say = (name, ...values) => {
  const words = WORDS[state.language][name];
  return typeof words === "function" ? words(...values) : words;
};
const number = (value, digits) => value.toLocaleString(state.language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
const whole = (value) => value.toLocaleString(state.language);
const percent = (share) => `${number(100 * share, share < 0.0995 ? 2 : 1)} %`;

/** An element with properties and children. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A token as people can see it: spaces and line ends get a sign. */
function visible(id) {
  return pairs.decode([id]).replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Pixels of numbers from -1 to 1, a row of them for each list; the sign is the hue, the size the strength. */
function pixels(rows, width) {
  const canvas = make("canvas", { width, height: rows.length });
  const image = canvas.getContext("2d").createImageData(width, rows.length);
  const hues = ["--accent-rgb", "--warm-rgb"].map((name) => colour(name).split(",").map(Number));
  rows.forEach((row, y) => row.forEach((value, x) => {
    const [r, g, b] = hues[value < 0 ? 1 : 0];
    image.data.set([r, g, b, 255 * Math.min(1, Math.abs(value))], 4 * (y * width + x));
  }));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

const largest = (vectors) => Math.max(1e-9, ...vectors.flatMap((vector) => Array.from(vector, Math.abs)));
const strip = (vector, scale) => pixels([Array.from(vector, (value) => value / scale)], vector.length);

function drawTokens() {
  const weights = state.trace.blocks[state.block].weight[state.head][state.token];
  find("tokens").replaceChildren(...state.ids.map((id, t) => {
    const chip = make("button", { type: "button", className: t > state.token ? "chip later" : "chip" }, visible(id), make("small", {}, String(id)));
    chip.setAttribute("aria-pressed", t === state.token);
    chip.style.background = `rgba(var(--accent-rgb), ${0.75 * (weights[t] ?? 0)})`;
    chip.onclick = () => choose({ token: t });
    return chip;
  }));
}

function drawHeads() {
  const T = state.ids.length, H = state.trace.blocks[0].weight.length;
  find("heads").style.gridTemplateColumns = `auto repeat(${H}, auto)`;
  find("heads").replaceChildren(...state.trace.blocks.flatMap((seen, block) => [
    make("span", {}, say("block", block + 1)),
    ...seen.weight.map((rows, head) => {
      const button = make("button", { type: "button", title: say("head", block + 1, head + 1) }, pixels(rows, T));
      button.setAttribute("aria-pressed", block === state.block && head === state.head);
      button.onclick = () => choose({ block, head });
      return button;
    }),
  ]));
}

function drawMap() {
  find("head-name").textContent = say("head", state.block + 1, state.head + 1);
  const rows = state.trace.blocks[state.block][state.shown][state.head];
  const T = rows.length, cell = 24, left = 96, top = 72;
  const scale = state.shown === "weight" ? 1 : largest(rows);
  const label = (id) => { const text = visible(id); return escaped(text.length > 10 ? `${text.slice(0, 9)}…` : text); };
  const parts = [`<svg viewBox="0 0 ${left + T * cell + 40} ${top + T * cell + 4}" role="img">`];
  state.ids.forEach((id, s) => parts.push(`<text font-size="12" transform="translate(${left + (s + 0.65) * cell}, ${top - 6}) rotate(-50)">${label(id)}</text>`));
  rows.forEach((row, t) => {
    const y = top + t * cell;
    parts.push(`<g class="row" data-token="${t}"><rect x="0" y="${y}" width="${left + T * cell}" height="${cell}" fill="transparent"/>`);
    parts.push(`<text font-size="12" text-anchor="end" x="${left - 6}" y="${y + 0.68 * cell}">${label(state.ids[t])}</text>`);
    row.forEach((value, s) => {
      const hue = value < 0 ? "--warm-rgb" : "--accent-rgb", strength = Math.min(1, Math.abs(value) / scale);
      const told = `${visible(state.ids[t])} → ${visible(state.ids[s])}: ${number(value, 3)}`;
      parts.push(`<rect x="${left + s * cell + 1}" y="${y + 1}" width="${cell - 2}" height="${cell - 2}" rx="3" style="fill: rgba(var(${hue}), ${0.04 + 0.96 * strength})"><title>${escaped(told)}</title></rect>`);
    });
    parts.push("</g>");
  });
  parts.push(`<rect class="frame" x="${left}" y="${top + state.token * cell}" width="${(state.token + 1) * cell}" height="${cell}" rx="4"/></svg>`);
  find("map").innerHTML = parts.join("");
  for (const row of find("map").querySelectorAll(".row")) row.onclick = () => choose({ token: Number(row.dataset.token) });
}

const escaped = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.codePointAt(0)};`);

function drawReading() {
  const seen = state.trace.blocks[state.block], t = state.token, shared = seen.keyHead(state.head);
  const query = seen.query[t][state.head], found = seen.found[state.head][t];
  const keys = seen.key.slice(0, t + 1).map((heads) => heads[shared]), values = seen.value.slice(0, t + 1).map((heads) => heads[shared]);
  const keyScale = largest(keys), valueScale = largest(values);
  find("reading-name").textContent = say("reading", visible(state.ids[t]));
  const titles = ["token", "key", "match", "weight", "value"].map((name) => make("th", {}, say(name)));
  const cells = (...parts) => parts.map((part) => make("td", {}, part));
  const rows = keys.map((key, s) => {
    const weight = seen.weight[state.head][t][s];
    const bar = make("div", { className: "bar" }, make("i"));
    bar.firstChild.style.width = `${100 * weight}%`;
    const share = make("div", {}, bar, make("span", { className: "number" }, percent(weight)));
    const row = make("tr", {}, ...cells(make("code", {}, visible(state.ids[s])), strip(key, keyScale), number(seen.match[state.head][t][s], 2), share, strip(values[s], valueScale)));
    row.children[2].className = "number";
    row.children[3].className = "weight";
    return row;
  });
  const asked = make("tr", { className: "query" }, ...cells(say("query"), strip(query, largest([query])), "", "", ""));
  const total = make("tr", { className: "total" }, ...cells("", "", "", say("sum"), strip(found, valueScale)));
  find("reading").replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...titles)), make("tbody", {}, asked, ...rows, total)));
}

function drawNext() {
  const shares = softmax(logitsAt(model, state.trace, state.token));
  const best = Array.from(shares.keys()).sort((a, b) => shares[b] - shares[a]).slice(0, SHOWN);
  const rest = 1 - best.reduce((sum, id) => sum + shares[id], 0);
  const line = (name, share) => {
    const bar = make("div", { className: "bar" }, make("i"));
    bar.firstChild.style.width = `${100 * share}%`;
    return make("button", { type: "button" }, make("code", {}, name), bar, make("span", { className: "number" }, percent(share)));
  };
  find("next-name").textContent = say("next", visible(state.ids[state.token]));
  const lines = best.map((id) => {
    const button = line(visible(id), shares[id]);
    button.onclick = () => read(pairs.decode([...state.ids.slice(0, state.token + 1), id]));
    return button;
  });
  const others = line(say("rest", whole(shares.length - SHOWN)), Math.max(0, rest));
  others.className = "rest";
  others.disabled = true;
  find("next").replaceChildren(...lines, others);
}

function drawWords() {
  document.documentElement.lang = state.language;
  document.documentElement.dataset.theme = state.theme;
  document.title = say("title");
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = say(element.dataset.word);
  for (const button of document.querySelectorAll("[data-language]")) button.setAttribute("aria-pressed", button.dataset.language === state.language);
  for (const button of document.querySelectorAll("[data-shown]")) button.setAttribute("aria-pressed", button.dataset.shown === state.shown);
  find("theme").title = say("theme");
  find("theme").setAttribute("aria-label", say("theme"));
  find("model-line").textContent = say("model", {
    parameters: whole(described.parameters), blocks: model.blocks.length, heads: described.heads, head: model.head_width, vocabulary: whole(pairs.tokens.length),
  });
}

function draw() {
  drawWords();
  const empty = !state.ids.length, all = pairs.encode(state.text).length;
  find("notice").textContent = empty ? say("empty") : all > state.ids.length ? say("cut", model.most_tokens) : "";
  for (const id of ["tokens", "heads", "map", "reading", "next"]) find(id).hidden = empty;
  if (empty) return;
  [drawTokens, drawHeads, drawMap, drawReading, drawNext].forEach((each) => each());
}

/** Show something else of the same text. */
function choose(changes) {
  Object.assign(state, changes);
  draw();
}

/** Read another text; the last token is the reader. */
function read(text) {
  state.text = text;
  if (find("text").value !== text) find("text").value = text;
  state.ids = pairs.encode(text).slice(0, model.most_tokens);
  state.trace = state.ids.length ? forward(model, state.ids) : null;
  choose({ token: state.ids.length - 1 });
}

find("text").oninput = (event) => read(event.target.value);
find("theme").onclick = () => choose({ theme: state.theme === "dark" ? "light" : "dark" });
for (const button of document.querySelectorAll("[data-language]")) button.onclick = () => choose({ language: button.dataset.language });
for (const button of document.querySelectorAll("[data-shown]")) button.onclick = () => choose({ shown: button.dataset.shown });
read(state.text);
