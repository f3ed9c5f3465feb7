// The sections of the page: each draws what is chosen, from what happened.
const SHOWN = 10;

/** The attention that is chosen: its place in the model, what it saw, the rows whose tokens ask and are read. */
function chosen() {
  const at = attentions[state.attention];
  const seen = state.traces[at.row].blocks[at.block][at.part];
  return { ...at, seen, asking: state.rows[at.row], read: state.rows[at.keys], token: state.tokens[at.row] };
}

/** What each place of a row counts for the token that asks; undefined where it is not read. */
function weightsOf(r) {
  const { keys, seen, token } = chosen();
  return keys === r ? seen.weight[state.head][token] : [];
}

/** What a reader typed in a place, hidden or not. */
const original = (row, place) => (place.isHidden ? place.places.map((each) => visible(row.typed[each])).join("") : named(row, place));

function drawRows() {
  state.rows.forEach((row, r) => {
    const weights = weightsOf(r), isRead = chosen().keys === r, scale = row.isText ? 1 : largest(row.sampled.patches);
    const most = row.isText ? 1 : Math.max(...weights);  // of many patches each has little
    const places = row.shown.map((place, t) => {
      const inside = row.isText ? [visible(place.id), make("small", {}, String(place.id))] : [patchPixels(row.sampled, row.sampled.patches[t], scale), make("i")];
      const chip = make("button", { type: "button", title: named(row, place), className: row.isText ? "chip" : "patch" }, ...inside);
      chip.classList.toggle("asking", r === chosen().row && t === state.tokens[r]);
      chip.classList.toggle("later", isRead && weights[t] === undefined);
      chip.classList.toggle("hidden-token", Boolean(place.isHidden));
      chip.setAttribute("aria-pressed", t === state.tokens[r]);
      (row.isText ? chip : chip.lastChild).style.background = place.isHidden ? "" : `rgba(var(--accent-rgb), ${0.75 * (weights[t] ?? 0) / most})`;
      if (place.isHidden) chip.title = original(row, place);
      chip.onclick = () => ask(r, t);
      return chip;
    });
    const { tokens, hide, notice, prefix, told } = row.elements;
    tokens.replaceChildren(...places);
    row.elements.samples.forEach((button, sample) => button.setAttribute("aria-pressed", sample === row.sample));
    if (!row.isText) tokens.style.gridTemplateColumns = `repeat(${places.length / row.sampled.grid_rows}, auto)`;
    const place = row.shown[state.tokens[r]];
    hide.hidden = !place || !row.described.hides.ids.length;
    if (place) hide.textContent = say(place.isHidden ? "show" : "hide", original(row, place));
    hide.disabled = !place || !row.canHide(place);
    notice.textContent = !row.shown.length ? say("empty") : row.length > row.shown.length ? say("cut", row.described.most_tokens) : "";
    prefix.parentElement.hidden = row.described.reach !== "prefix";
    Object.assign(prefix, { max: Math.max(1, row.shown.length), value: state.prefix });
    told.textContent = say("prefix", Math.min(state.prefix, row.shown.length));
  });
}

function drawHeads() {
  const groups = Map.groupBy(attentions.map((at, index) => ({ ...at, index })), ({ row, reads }) => `${model.rows[row].name}_${reads}`);
  find("heads").replaceChildren(...Array.from(groups, ([name, group]) => {
    const title = groups.size > 1 ? [make("h3", {}, say(`reads_${name}`))] : [];
    const grid = make("div", { className: "grid" }, ...group.flatMap(({ row, block, part, keys, index }) => [
      make("span", {}, say("block", block + 1)),
      ...state.traces[row].blocks[block][part].weight.map((rows, head) => {
        const button = make("button", { type: "button", title: say("head", block + 1, head + 1) }, pixels(rows, state.rows[keys].shown.length));
        button.setAttribute("aria-pressed", index === state.attention && head === state.head);
        button.onclick = () => choose({ attention: index, head });
        return button;
      }),
    ]));
    grid.style.gridTemplateColumns = `auto repeat(${Math.max(...group.map(({ heads }) => heads))}, minmax(36px, 92px))`;
    return make("div", {}, ...title, grid);
  }));
  const { row, reads } = chosen();
  find("heads-help").textContent = `${say("heads_help")} ${say(`heads_${reads === "own" ? model.rows[row].reach : reads}`)}`;
}

function drawMap() {
  const { seen, asking, read, token, block } = chosen(), rows = seen[state.shown][state.head];
  find("head-name").textContent = say("head", block + 1, state.head + 1);
  const S = read.shown.length, cell = asking.isText ? 24 : 10, wide = read.isText ? 24 : 10, left = 96, top = 72;
  const scale = state.shown === "weight" ? 1 : largest(rows);
  const label = (row, place) => {
    if (!row.isText) return place.id % 8 ? "" : String(place.id + 1);
    const text = named(row, place);
    return escaped(text.length > 10 ? `${text.slice(0, 9)}…` : text);
  };
  const parts = [`<svg viewBox="0 0 ${left + S * wide + 40} ${top + rows.length * cell + 4}" role="img">`];
  read.shown.forEach((place, s) => parts.push(`<text font-size="12" transform="translate(${left + (s + 0.65) * wide}, ${top - 6}) rotate(-50)">${label(read, place)}</text>`));
  rows.forEach((row, t) => {
    const y = top + t * cell;
    parts.push(`<g class="row" data-token="${t}"><rect x="0" y="${y}" width="${left + S * wide}" height="${cell}" fill="transparent"/>`);
    parts.push(`<text font-size="12" text-anchor="end" x="${left - 6}" y="${y + 0.68 * cell}">${label(asking, asking.shown[t])}</text>`);
    row.forEach((value, s) => {
      const hue = value < 0 ? "--warm-rgb" : "--accent-rgb", strength = Math.min(1, Math.abs(value) / scale);
      const told = `${named(asking, asking.shown[t])} → ${named(read, read.shown[s])}: ${number(value, 3)}`;
      parts.push(`<rect x="${left + s * wide + 1}" y="${y + 1}" width="${wide - 2}" height="${cell - 2}" rx="${Math.min(wide, cell) / 8}" style="fill: rgba(var(${hue}), ${0.04 + 0.96 * strength})"><title>${escaped(told)}</title></rect>`);
    });
    parts.push("</g>");
  });
  parts.push(`<rect class="frame" x="${left}" y="${top + token * cell}" width="${rows[token].length * wide}" height="${cell}" rx="4"/></svg>`);
  find("map").innerHTML = parts.join("");
  for (const row of find("map").querySelectorAll(".row")) row.onclick = () => ask(chosen().row, Number(row.dataset.token));
}

function drawReading() {
  const { seen, asking, read, token } = chosen(), shared = seen.keyHead(state.head);
  const query = seen.query[token][state.head], found = seen.found[state.head][token], weights = seen.weight[state.head][token];
  const keys = weights.map((_, s) => seen.key[s][shared]), values = weights.map((_, s) => seen.value[s][shared]);
  const keyScale = largest(keys), valueScale = largest(values);
  find("reading-name").textContent = say("reading", named(asking, asking.shown[token]));
  const titles = [read.isText ? "token" : "place", "key", "match", "weight", "value"].map((name) => make("th", {}, say(name)));
  const cells = (...parts) => parts.map((part) => make("td", {}, part));
  const rows = weights.map((weight, s) => {
    const share = make("div", {}, ...bar(weight));
    const row = make("tr", {}, ...cells(make("code", {}, named(read, read.shown[s])), strip(keys[s], keyScale), number(seen.match[state.head][token][s], 2), share, strip(values[s], valueScale)));
    row.children[2].className = "number";
    row.children[3].className = "weight";
    return row;
  });
  const asked = make("tr", { className: "query" }, ...cells(say("query"), strip(query, largest([query])), "", "", ""));
  const total = make("tr", { className: "total" }, ...cells("", "", "", say("sum"), strip(found, valueScale)));
  find("reading").replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...titles)), make("tbody", {}, asked, ...rows, total)));
}

/** For each token and block, how probable its router finds each expert, and which ones the token passes. */
function drawExperts() {
  find("experts").replaceChildren(...routers.map(({ row, blocks }) => {
    const asking = state.rows[row];
    const titles = ["", ...blocks.map(({ block }) => say("block", block + 1))].map((title) => make("th", {}, title));
    const lines = asking.shown.map((place, t) => {
      const cells = blocks.map(({ block, part }) => make("td", {}, routed(state.traces[row].blocks[block][part], t)));
      const line = make("tr", {}, make("td", {}, make("code", {}, named(asking, place))), ...cells);
      line.setAttribute("aria-selected", t === state.tokens[row]);
      line.onclick = () => ask(row, t);
      return line;
    });
    return make("table", {}, make("thead", {}, make("tr", {}, ...titles)), make("tbody", {}, ...lines));
  }));
}

function routed({ probability, chosen }, t) {
  const weightOf = new Map(chosen[t].map(({ expert, weight }) => [expert, weight]));
  const squares = Array.from(probability[t], (share, expert) => {
    const square = make("span", { className: "expert", title: say("expert", expert + 1, percent(share)) }, String(expert + 1));
    square.style.background = `rgba(var(--accent-rgb), ${0.04 + 0.8 * share})`;
    square.classList.toggle("passed", weightOf.has(expert));
    return square;
  });
  const told = chosen[t].map(({ expert, weight }) => say("passed", expert + 1, number(weight, 2))).join(" + ");
  return make("div", { className: "routed" }, make("span", { className: "squares" }, ...squares), make("span", { className: "number" }, told));
}

/** What the row that ends in logits is asked, and what a click on an answer does with it. */
const ANSWERS = {
  next: {
    title: (row, place) => say("next", named(row, place)),
    note: (row, t) => (row.described.reach === "prefix" && t + 1 < Math.min(state.prefix, row.shown.length) ? say("in_prefix") : ""),
    truth: () => null,
    take: (row, t, id) => { row.append(t, id); state.tokens[state.rows.length - 1] = row.shown.length - 1; },
  },
  place: {
    title: (row, place, t) => say(place.isHidden ? "at_hidden" : "at", place.isHidden ? t + 1 : named(row, place)),
    note: (row, t) => (row.shown[t].isHidden ? "" : say("not_hidden")),
    truth: (row, t) => (row.shown[t].isHidden ? row.typed[row.shown[t].places[0]] : null),
    take: (row, t, id) => row.fill(row.shown[t], id),
  },
};

function drawAnswer() {
  const r = state.rows.length - 1, row = state.rows[r], t = state.tokens[r], kind = row.described.reach === "both" ? "place" : "next";
  const answer = ANSWERS[kind], shares = softmax(logitsAt(model.rows[r], state.traces[r], t)), truth = answer.truth(row, t);
  const order = Array.from(shares.keys()).sort((a, b) => shares[b] - shares[a]), best = order.slice(0, SHOWN);
  find("next-name").textContent = answer.title(row, row.shown[t], t);
  find("next-help").textContent = `${say(`${kind}_help`)} ${answer.note(row, t)}`;
  const line = (name, share) => make("button", { type: "button" }, make("code", {}, name), ...bar(share));
  const listed = truth === null || best.includes(truth) ? best : [...best, truth];
  const lines = listed.map((id) => {
    const isTruth = id === truth, button = line(visible(id), shares[id]);
    if (isTruth) button.append(make("span", { className: "truth" }, say("truth", whole(order.indexOf(id) + 1))));
    button.onclick = () => change(() => answer.take(row, t, id));
    return button;
  });
  const others = line(say("rest", whole(shares.length - listed.length)), Math.max(0, 1 - listed.reduce((sum, id) => sum + shares[id], 0)));
  Object.assign(others, { className: "rest", disabled: true });
  find("next").replaceChildren(...lines, others);
}
