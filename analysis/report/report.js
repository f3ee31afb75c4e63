"use strict";
const one = (what, within = document) => within.querySelector(what);
const all = (what, within = document) => [...within.querySelectorAll(what)];
const make = (tag, fields = {}, ...inside) => {
  const made = Object.assign(document.createElement(tag), fields);
  made.append(...inside);
  return made;
};

// The scoreboard: what is not asked for is hidden.
const filter = one("#filter"), claims = all(".claim");
const narrow = () => {
  const { verdict, topic, model, text } = Object.fromEntries(new FormData(filter));
  const words = text.toLowerCase().split(/\s+/);
  let shown = 0;
  for (const claim of claims) {
    const about = claim.dataset, said = claim.textContent.toLowerCase();
    claim.hidden = (verdict && about.verdict !== verdict) || (topic && about.topic !== topic)
      || (model && !about.models.split(" ").includes(model)) || !words.every(word => said.includes(word));
    shown += !claim.hidden;
  }
  one("output", filter).value = `${shown} of ${claims.length} claims`;
  for (const button of all(".counts button")) button.ariaPressed = button.dataset.verdict === verdict;
};
if (filter) {
  filter.hidden = false;
  filter.onsubmit = event => event.preventDefault();
  filter.oninput = narrow;
  filter.onreset = () => setTimeout(narrow);
  for (const tile of all(".counts li")) {
    const button = make("button", { type: "button" }, ...tile.childNodes);
    button.dataset.verdict = tile.className;
    button.onclick = () => {
      filter.verdict.value = filter.verdict.value === tile.className ? "" : tile.className;
      narrow();
    };
    tile.append(button);
  }
  narrow();
}

// What a link leads to is shown: unfolded, and not filtered out.
const reveal = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target.hidden) filter.reset();
  if (target.matches("details")) target.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", reveal);
for (const link of all(".menu a")) link.onclick = () => { one(".menu").open = false; };

const said = cell => (cell?.dataset.text ?? cell?.textContent ?? "").trim();

// Tables: sorted by a column at a press of its head, the paper's rows below ours.
const number = text => parseFloat((/^[^\w+-]*([+-]?[\d,]*\.?\d+(e[+-]?\d+)?)/i.exec(text) || [])[1]?.replaceAll(",", ""));
const compare = (a, b) => {
  const x = number(a), y = number(b);
  if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;
  return isNaN(x) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
};
const sort = head => {
  const body = head.closest("table").tBodies[0], column = head.cellIndex;
  const sign = head.ariaSort === "ascending" ? -1 : 1;
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.ariaSort = sign > 0 ? "ascending" : "descending";
  const text = row => said(row.cells[column]);
  const rows = [...body.rows].sort((a, b) => a.matches(".paper") - b.matches(".paper") || sign * compare(text(a), text(b)));
  body.append(...rows);
};

// On a phone the labels of a row are in one column, which stays where it is.
const labels = table => {
  const rows = [...table.tBodies[0].rows], width = table.tHead.rows[0].cells.length;
  const worded = text => isNaN(number(text)) && !/^\S+ = [\d.]+$/.test(text);
  const named = column => rows.filter(row => worded(said(row.cells[column]))).length > rows.length / 2;
  let count = 1;
  while (count < width - 1 && named(count)) count += 1;
  return count;
};
const gather = (table, count) => {
  for (const row of all("tr", table)) {
    const others = [...row.cells].slice(1, count), texts = others.map(said).filter(text => text !== "–");
    if (!texts.length) continue;
    row.cells[0].dataset.text = said(row.cells[0]);
    row.cells[0].append(make("span", { className: "rest", ariaHidden: "true" }, ` · ${texts.join(" · ")}`));
    for (const cell of others) cell.classList.add("label");
  }
};

// A number leads to its runs. One stop of the tab key a table; the arrow keys go on from there.
const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const go = event => {
  const [down, right] = step[event.key] || [];
  if (down === undefined) return;
  let cell = event.target.closest("td"), next;
  if (!cell) return;
  event.preventDefault();
  do {
    const row = down < 0 ? cell.parentNode.previousElementSibling : down > 0 ? cell.parentNode.nextElementSibling : cell.parentNode;
    cell = row?.cells[cell.cellIndex + right];
    next = cell && one("button", cell);
  } while (cell && !next);
  if (!next) return;
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
};
const lead = (table, count) => {
  let first = true;
  for (const row of table.tBodies[0].rows) {
    if (row.matches(".paper")) continue;
    for (const cell of [...row.cells].slice(count)) {
      const head = table.tHead.rows[0].cells[cell.cellIndex];
      if (!/\d/.test(cell.textContent) || head.textContent.startsWith("paper") || one("a", cell)) continue;
      cell.append(make("button", { type: "button", className: "runs", tabIndex: first ? 0 : -1, ariaHasPopup: "dialog" }, ...cell.childNodes));
      first = false;
    }
  }
  table.addEventListener("keydown", go);
};
for (const table of all(".body table")) {
  const count = labels(table);
  lead(table, count);
  gather(table, count);
}
for (const table of all("table")) {
  if (table.tBodies[0]?.rows.length < 2) continue;
  for (const head of all("th", table.tHead)) {
    const button = make("button", { type: "button", className: "sort" }, ...head.childNodes);
    button.onclick = () => sort(head);
    head.append(button);
  }
}

// The panel of a number: its runs, what makes them, on what they were trained.
const stored = new Map();
const runs = study => {
  if (!stored.has(study)) {
    const data = JSON.parse(document.getElementById(`runs-${study}`)?.textContent ?? "null");
    if (data) {
      data.of = (name, run) => { const [kinds, at] = data.columns[name]; return kinds[at ? at[run] : run]; };
    }
    stored.set(study, data);
  }
  return stored.get(study);
};
const different = (data, name, chosen) => [...new Set(chosen.map(run => data.of(name, run)))].filter(value => value !== "");
const ONLY = { model: "model", task: "task", label: "method", r: "method.r", weight_types: "method.weight_types", seed: "seed" };
const command = (section, data, chosen) => {
  const parts = [];
  for (const [name, field] of Object.entries(ONLY)) {
    const values = different(data, name, chosen);
    const fewer = values.length && values.length < different(data, name, data.own).length;
    if (fewer && values.every(value => /^[\w.+/-]+$/.test(value))) parts.push(`only.${field}=${values.join(",")}`);
  }
  const presets = different(data, "preset", chosen);
  const target = section.dataset.command.replace(/PRESET=\S+/, text => presets.length === 1 ? `PRESET=${presets[0]}` : text);
  return parts.length ? `${target} ARGS='${parts.join(" ")}'` : target;
};
const TITLES = { run: "run id", label: "method", weight_types: "weights", lr: "learning rate", head_lr: "head's rate" };
const listed = (data, chosen, metric) => {
  const names = ["model", "task", "label", "settings", "weight_types", "r", "lr", "head_lr", "role"];
  const columns = ["run", ...names.filter(name => chosen.some(run => data.of(name, run) !== data.of(name, chosen[0]))), "seed"];
  const same = names.filter(name => !columns.includes(name) && !["", "study"].includes(data.of(name, chosen[0])));
  const scores = metric ? [metric] : Object.keys(data.scores).filter(name => !name.includes(" ")).slice(0, 2);
  const about = make("dl");
  for (const name of same) about.append(make("dt", {}, TITLES[name] ?? name), make("dd", {}, String(data.of(name, chosen[0]))));
  const head = make("tr", {}, ...[...columns, ...scores].map(name => make("th", { scope: "col" }, (TITLES[name] ?? name).replaceAll("_", " "))));
  const rows = chosen.map(run => make("tr", {},
    ...columns.map(name => make("td", {}, String(data.of(name, run)))),
    ...scores.map(name => make("td", {}, String(data.scores[name][run] ?? "–")))));
  const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
  return [about, make("div", { className: "wide", tabIndex: 0, role: "group", ariaLabel: "runs" }, table)];
};
const WIDE = "So wide an interval says that these runs tell little of the mean: Student's t takes 12.7 standard errors with 2 runs, 4.3 with 3, 2.8 with 5. More seeds narrow it.";
const panel = one("#panel");
one("#hint").hidden = false;
const open = cell => {
  const section = cell.closest("section"), table = cell.closest("table"), data = runs(section.id);
  const place = [...cell.parentNode.cells].slice(0, labels(table)).map(said).filter(text => text !== "–");
  place.push(said(table.tHead.rows[0].cells[cell.cellIndex]));
  const body = [make("p", { className: "soft" }, `${one("h2", section).textContent}: ${place.join(", ")}`)];
  if (cell.matches(".vague")) body.push(make("p", { className: "note" }, WIDE));
  if (data) {
    const [metric, ...named] = data.sets[cell.dataset.s] ?? ["", ...data.own], n = named.length;
    const what = metric ? `The mean of ${n === 1 ? "this run" : `these ${n} runs`} in ${metric.replaceAll("_", " ")}.`
      : cell.dataset.s ? `From the ${n} runs that its row and column name.` : `From all ${n} runs of the study.`;
    body.push(make("p", {}, what), ...listed(data, named, metric));
    body.push(make("h3", {}, "What makes them"), make("p", {}, make("code", {}, command(section, data, named))));
    const machines = different(data, "machine", named);
    if (machines.length) body.push(make("h3", {}, "Trained on"), make("ul", {}, ...machines.map(text => make("li", {}, text))));
  } else {
    body.push(make("p", {}, "Measured or computed, not the score of runs:"), one(".made dl", section).cloneNode(true));
  }
  one("h2", panel).textContent = said(cell);
  one("div", panel).replaceChildren(...body);
  panel.showModal();
};
document.addEventListener("click", event => {
  if (event.target.closest(".runs")) open(event.target.closest("td"));
  else if (event.target === panel) panel.close();
});

// Maps of phi: a cell for each stored i and j, with what is at the pointer.
const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const ROCKET = ["03051a", "1d112c", "3a1a41", "591e50", "781f59", "9a1b5b", "bc1656", "d72549", "eb463e", "f26d4b", "f58f66", "f6b089", "f7cfb3", "faebdd"]
  .map(text => [0, 2, 4].map(at => parseInt(text.slice(at, at + 2), 16)));
const colour = share => {
  const at = Math.min(Math.max(share, 0), 1) * (ROCKET.length - 1), below = Math.min(Math.floor(at), ROCKET.length - 2);
  return ROCKET[below].map((value, part) => value + (at - below) * (ROCKET[below + 1][part] - value));
};
const decode = text => Array.from({ length: text.length / 2 }, (_, at) => (64 * DIGITS.indexOf(text[2 * at]) + DIGITS.indexOf(text[2 * at + 1])) / 4095);
const ticks = values => {
  const found = [];
  values.forEach((value, at) => {
    const place = (at + 0.5) / values.length;
    if ([1, 8, 16, 32, 64, 96].includes(value) && !(place - found.at(-1)?.[1] < 0.13)) found.push([value, place]);
  });
  return found;
};
const map = (title, about, values, chance, top, say) => {
  const { i, j } = about, canvas = make("canvas", { width: j.length, height: i.length, tabIndex: 0, role: "img" });
  const image = new ImageData(j.length, i.length);
  values.forEach((value, at) => image.data.set([...colour(value / top), 255], 4 * at));
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.ariaLabel = `${title}: phi from ${Math.min(...values).toFixed(3)} to ${Math.max(...values).toFixed(3)}; arrow keys move over its cells`;
  const mark = make("i", { hidden: true }), frame = make("div", { className: "frame" }, canvas, mark);
  let row = 0, column = 0;
  const show = () => {
    mark.hidden = false;
    Object.assign(mark.style, { left: `${100 * column / j.length}%`, top: `${100 * row / i.length}%`, width: `${100 / j.length}%`, height: `${100 / i.length}%` });
    const at = row * j.length + column;
    say(`${title}: i = ${i[row]}, j = ${j[column]}, phi ${values[at].toFixed(3)}, chance ${chance[at].toFixed(3)}`);
  };
  canvas.onpointermove = canvas.onpointerdown = event => {
    row = Math.min(Math.floor(i.length * event.offsetY / canvas.clientHeight), i.length - 1);
    column = Math.min(Math.floor(j.length * event.offsetX / canvas.clientWidth), j.length - 1);
    if (row >= 0 && column >= 0) show();
  };
  canvas.onfocus = show;
  canvas.onkeydown = event => {
    const [down, right] = step[event.key] || [];
    if (down === undefined) return;
    event.preventDefault();
    row = Math.min(Math.max(row + down, 0), i.length - 1);
    column = Math.min(Math.max(column + right, 0), j.length - 1);
    show();
  };
  for (const [value, at] of ticks(i)) frame.append(make("small", { className: "i", style: `top:${100 * at}%` }, String(value)));
  for (const [value, at] of ticks(j)) frame.append(make("small", { className: "j", style: `left:${100 * at}%` }, String(value)));
  return make("div", { className: "map" }, make("b", {}, title), frame);
};
for (const figure of all(".phi")) {
  const found = JSON.parse(one("script", figure).textContent), box = one(".maps", figure), said = one("output", figure);
  const which = one("select", figure), layer = one("input", figure);
  which.append(...found.map((each, at) => make("option", { value: at }, each.title)));
  const draw = () => {
    const about = found[which.value], layers = [...new Set(about.maps.map(([name]) => name))];
    if (+layer.max !== layers.length - 1 || layer.dataset.of !== which.value) {
      layer.max = layers.length - 1;
      layer.value = Math.floor((layers.length - 1) / 2);
      layer.dataset.of = which.value;
    }
    layer.disabled = layers.length < 2;
    one("b", figure).textContent = layers[layer.value];
    const grids = about.maps.map(([name, type, dim, text]) => ({ name, type, dim, values: decode(text) }));
    const top = Math.max(...grids.flatMap(each => each.values));
    const here = grids.filter(each => each.name === layers[layer.value]);
    const chance = dim => about.i.flatMap(i => about.j.map(j => Math.max(i, j) / dim));
    const say = text => { said.value = text; };
    box.replaceChildren(
      ...here.map(each => map(`W_${each.type}`, about, each.values, chance(each.dim), top, say)),
      map("chance", about, chance(here[0].dim), chance(here[0].dim), top, say));
    one(".bar span", figure).textContent = top.toFixed(2);
    say("i downwards, j to the right, a cell for each that is stored: point at one.");
  };
  which.onchange = layer.oninput = draw;
  draw();
  figure.hidden = false;
}
reveal();
