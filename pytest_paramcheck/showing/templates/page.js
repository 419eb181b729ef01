// The sections of the page.

function card(number, words, kind = "") {
  return element("div", { class: `card ${kind}` }, element("b", {}, number), element("span", {}, words));
}

function filterCard(key, words, kind) {
  const filter = FILTERS.find((one) => one.key === key);
  if (!filter) return null;
  const made = element("button", { type: "button", class: `card ${kind}`, onclick: () => {
    choose(key);
    byId("parameters").scrollIntoView();
    grid.focus({ preventScroll: true });
  } }, element("b", {}, whole(filter.count)), element("span", {}, words(filter.count)));
  return made;
}

function section(id, ...content) {
  const host = byId(id);
  host.hidden = false;
  host.append(...content.filter(Boolean));
  return host;
}

function glance() {
  const root = MODULES[0];
  const own = P.filter((p) => p.kind !== "buffer");
  const trainable = own.filter((p) => p.trainable).reduce((sum, p) => sum + (p.elements || 0), 0);
  const kinds = [...new Set(P.map((p) => p.dtype))], places = [...new Set(P.map((p) => p.device))];
  const said = [`${plural(root.elements, "element")} in ${plural(own.length, TENSORS ? "tensor" : "parameter")}`];
  if (own.some((p) => p.kind === "parameter")) {
    said.push(trainable === root.elements ? "all trainable" : trainable ? `${whole(trainable)} trainable` : "all frozen");
  }
  if (P.length > own.length) said.push(plural(P.length - own.length, "buffer"));
  said.push(bytesText(root.bytes), `${kinds.slice(0, 3).join(", ")}${kinds.length > 3 ? ", ..." : ""} on ${places.join(", ")}`);
  const line = byId("headline");
  line.textContent = [line.textContent.trim(), ...said].filter(Boolean).join(" · ");
  const parameter = (n, one, several) => n === 1 ? one : several;
  byId("glance").append(element("div", { class: "cards" }, ...[
    filterCard("finding", (n) => parameter(n, "parameter with findings", "parameters with findings"), "finding"),
    filterCard("bad", (n) => parameter(n, "parameter", "parameters") + " with NaN or infinity", "bad"),
    filterCard("wild", (n) => parameter(n, "gradient", "gradients") + " with NaN or infinity", "bad"),
    filterCard("dead", (n) => parameter(n, "parameter", "parameters") + " without a gradient", "dead"),
    filterCard("ungrouped", () => "in no optimizer group", "dead"),
    filterCard("different", (n) => parameter(n, "differs", "differ") + ` from ${D.before}`, "diff"),
    filterCard("frozen", () => "frozen", "frozen"),
    filterCard("tied", (n) => parameter(n, "tied parameter", "tied parameters"), "tied"),
    filterCard("buffer", (n) => parameter(n, "buffer", "buffers"), "plain"),
  ].filter(Boolean)));
  for (const note of D.notes) byId("glance").append(element("p", { class: "note" }, note));
  const graded = P.some((p) => p.grad != null);
  if (graded && !own.some((p) => ["dead", "bad", "wild"].includes(p.state)) && trainable) {
    byId("glance").append(element("p", { class: "good" }, "Every trainable parameter has a gradient that is finite and not zero."));
  }
  if (!graded && !D.notes.length && own.some((p) => p.trainable)) {
    byId("glance").append(element("p", { class: "hint" }, "Nothing was run, so no gradients are shown: inputs= and loss= ask for them."));
  }
}

// What is said of many parameters in the same words is said once, with all of their names.
function alike(findings) {
  const groups = new Map();
  for (const f of findings) {
    const key = JSON.stringify([f.problem, f.text, f.hint.replaceAll(/\d+/g, "0"), f.rows]);
    const group = groups.get(key);
    if (group && !f.rows.length) group.names.push(...f.names);
    else groups.set(key, { ...f, names: [...f.names] });
  }
  return [...groups.values()];
}

function checks() {
  const done = D.checks || [];
  if (!D.findings.length && !done.length) return;
  const of = (outcome) => done.filter((check) => check.outcome === outcome);
  const parts = [];
  if (done.length) {
    parts.push(element("p", {}, [["failed", "failed"], ["expected", "failed as expected"], ["passed", "passed"], ["skipped", "had nothing to look at"]]
      .filter(([outcome]) => of(outcome).length)
      .map(([outcome, words]) => `${plural(of(outcome).length, "check")} ${words}`).join(", ") + "."));
  }
  const byCheck = new Map();
  for (const f of D.findings) byCheck.set(f.check, [...(byCheck.get(f.check) || []), f]);
  for (const check of of("failed")) if (!byCheck.has(check.name)) byCheck.set(check.name, []);
  for (const [check, found] of byCheck) {
    const result = done.find((one) => one.name === check);
    const together = alike(found);
    parts.push(element("details", { open: together.length < 4, class: "check" },
      element("summary", {}, element("code", {}, check || "findings"),
        found.length ? ` ${plural(found.length, "finding")}` : " failed",
        result?.outcome === "expected" ? `, expected: ${result.text}` : ""),
      ...together.slice(0, 30).map((f) => finding({ ...f, check: "" })),
      together.length > 30 ? element("p", {}, `and ${whole(together.length - 30)} more`) : null,
      result?.text && !found.length ? element("pre", { class: "scroll" }, result.text) : null));
  }
  const skipped = of("skipped");
  if (skipped.length) {
    parts.push(element("details", { class: "check" }, element("summary", {}, `${plural(skipped.length, "check")} had nothing to look at`),
      element("ul", {}, ...skipped.map((one) => element("li", {}, element("code", {}, one.name), one.text ? `: ${one.text}` : "")))));
  }
  const passed = of("passed");
  if (passed.length) {
    parts.push(element("details", { class: "check" }, element("summary", {}, `${plural(passed.length, "check")} passed`),
      element("ul", { class: "flow" }, ...passed.map((one) => element("li", {}, element("code", {}, one.name))))));
  }
  section("checks", ...parts);
}

function byDepth() {
  const graded = has(gradOf), stepped = has(updateOf), moved = has(changeOf);
  if (!graded && !stepped && !moved) return;
  const host = section("depth", element("p", { class: "hint" },
    "Each dot is a parameter, in the order of registration: ",
    element("span", { class: "swatch dot" }), " matrices and larger, ",
    element("span", { class: "swatch dot flat" }), " vectors (biases, norms)."));
  const row = element("div", { class: "charts" });
  host.append(row);
  if (graded) {
    chart(row, { title: "Gradient norm", hint: "log scale", value: gradOf,
      none: (p) => p.trainable && ["none", "zero", "not finite"].includes(p.grad) });
  }
  if (stepped) {
    chart(row, { title: "Update ratio", hint: "one optimizer step, as a share of the parameter's norm; dashed: 0.001",
      value: updateOf, lines: [1e-3] });
  }
  if (moved) chart(row, { title: "Moved", hint: `from ${D.before}, as a share of its norm`, value: changeOf });
}

function losses() {
  if (!D.losses.length || (D.losses.length === 1 && !P.some((p) => p.state === "dead"))) return;
  let root = MODULES[0];
  while (root.children.length === 1 && !root.parameters.length) root = root.children[0];
  const parts = [...root.parameters.filter((p) => p.trainable), ...root.children].slice(0, 60);
  const below = (part) => part.type === "module" ? inside(part) : [part];
  const table = element("table", { class: "matrix" }, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "part"),
    ...D.losses.map((loss) => element("th", { scope: "col" }, loss)))));
  const body = element("tbody");
  table.append(body);
  for (const part of parts) {
    const trainable = below(part).filter((p) => p.trainable);
    if (!trainable.length) continue;
    body.append(element("tr", {}, element("th", { scope: "row" }, element("button", { type: "button", class: "link",
      onclick: () => show(part) }, part.label)), ...D.losses.map((_, n) => {
      const reached = trainable.filter((p) => p.losses[n] === "nonzero").length;
      const word = reached === trainable.length ? "all" : reached ? "some" : "none";
      return element("td", { class: word }, word === "some" ? `${whole(reached)} of ${whole(trainable.length)}`
        : word === "all" ? `all ${whole(trainable.length)}` : `none of ${whole(trainable.length)}`);
    })));
  }
  section("losses", element("p", { class: "hint" }, "Trainable parameters that get a nonzero gradient."),
    element("div", { class: "scroll" }, table));
}

function inside(module) {
  const found = [], stack = [module];
  while (stack.length) {
    const m = stack.pop();
    found.push(...m.parameters);
    stack.push(...m.children);
  }
  return found;
}

function groups() {
  if (!D.groups.length) return;
  const rows = D.groups.map((text, n) => {
    const held = P.filter((p) => p.groups.includes(n));
    return element("tr", {}, element("th", { scope: "row" }, text), element("td", { class: "number" }, whole(held.length)),
      element("td", { class: "number" }, whole(held.reduce((sum, p) => sum + (p.elements || 0), 0))));
  });
  const lost = P.filter((p) => p.trainable && !p.groups.length);
  section("groups", element("div", { class: "scroll" }, element("table", {}, element("thead", {}, element("tr", {},
    element("th", { scope: "col" }, "group"), element("th", { scope: "col", class: "number" }, "parameters"),
    element("th", { scope: "col", class: "number" }, "elements"))), element("tbody", {}, ...rows))),
  lost.length ? element("div", { class: "note" }, `${plural(lost.length, "trainable parameter is", "trainable parameters are")} in no group:`, links(lost.map((p) => p.name))) : null);
}

function ties() {
  const tied = P.filter((p) => p.aliases.length);
  if (!tied.length) return;
  // A module in several places ties all that is in it: said once.
  const groups = new Map();
  for (const p of tied) {
    const names = withoutCommonEnd([p.name, ...p.aliases.map(([name]) => name)]);
    const key = JSON.stringify(names);
    groups.set(key, [...(groups.get(key) || []), p]);
  }
  const lines = [...groups].flatMap(([key, of]) => of.length > 1 && JSON.parse(key).every(Boolean)
    ? [{ names: JSON.parse(key), held: rowsText(of.length) }]
    : of.map((p) => ({ names: [p.name, ...p.aliases.map(([name]) => name)], held: "" })));
  section("ties", element("ul", { class: "ties" }, ...lines.slice(0, 200).map(({ names, held }) => element("li", {}, link(names[0]),
    ...names.slice(1, 13).map((name) => element("span", {}, " = ", element("code", {}, name))),
    names.length > 13 ? ` = ... ${whole(names.length - 13)} more` : null,
    held ? element("span", { class: "hint" }, ` (${held})`) : null))),
  lines.length > 200 ? element("p", {}, `and ${whole(lines.length - 200)} more`) : null);
}

// Names without the parts at their end that all of them have.
function withoutCommonEnd(names) {
  const parts = names.map((name) => name.split("."));
  while (parts.every((one) => one.length && one.at(-1) === parts[0].at(-1))) parts.forEach((one) => one.pop());
  return parts.map((one) => one.join("."));
}

function compared() {
  if (!D.before) return;
  const moved = P.filter((p) => p.changed);
  const kinds = new Map();
  for (const d of D.differences) kinds.set(d.kind, [...(kinds.get(d.kind) || []), d]);
  byId("compared-title").textContent = `Compared with ${D.before}`;
  const parts = [];
  if (!moved.length && !kinds.size) parts.push(element("p", { class: "good" }, "Nothing differs: names, shapes, dtypes, ties and values are the same."));
  if (moved.length) {
    const most = [...moved].sort((a, b) => (b.change ?? 0) - (a.change ?? 0)).slice(0, 8);
    parts.push(element("p", {}, `The values of ${whole(moved.length)} of ${plural(P.length, "tensor")} differ. What moved most, as a share of its norm:`),
      element("ul", { class: "names flow" }, ...most.map((p) => element("li", {}, link(p.name), ` ${short(p.change)}`))));
  }
  for (const [kind, found] of kinds) {
    parts.push(element("details", { open: found.length < 12 || null }, element("summary", {}, `${whole(found.length)} ${DIFFERENCE_WORDS[kind] || kind}`),
      element("ul", { class: "names flow" }, ...found.slice(0, 100).map((d) => element("li", {}, link(d.name), ` ${d.text}`))),
      found.length > 100 ? element("p", {}, `and ${whole(found.length - 100)} more`) : null));
  }
  section("compared", ...parts);
}

if (TENSORS) byId("parameters-title").textContent = "Tensors";
openFirstLevels();
glance();
checks();
orderPicture(byId("order"));
byDepth();
drawHead();
drawFilters();
fitRows();
NARROW.addEventListener("change", fitRows);
losses();
groups();
ties();
compared();
drawDetail(MODULES[0]);
drawAll();
byId("detail").classList.remove("asked");
byId("made").textContent = `Made by pytest-paramcheck with torch ${D.torch}. Nothing on this page is loaded from anywhere.`;
document.documentElement.dataset.drawn = "";
