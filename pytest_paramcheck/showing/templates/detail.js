// One row in full, beside the tree; on a narrow screen at its foot.

function facts(pairs) {
  const list = element("dl");
  for (const [term, ...values] of pairs) {
    const said = values.filter((value) => value != null && value !== "");
    if (said.length) list.append(element("dt", {}, term), element("dd", {}, ...said));
  }
  return list;
}

function link(name) {
  const p = BY_NAME.get(name);
  if (!p) return element("code", {}, name);
  return element("button", { type: "button", class: "link", onclick: () => show(p) }, name);
}

function links(names, most = 20) {
  const list = element("ul", { class: "names flow" }, ...names.slice(0, most).map((name) => element("li", {}, link(name))));
  if (names.length > most) list.append(element("li", {}, `and ${whole(names.length - most)} more`));
  return list;
}

function distribution(title, s) {
  if (!s) return null;
  const box = element("section", { class: "distribution" }, element("h4", {}, title));
  if (s.bars) {
    const image = histogram(s.bars, 300, 70);
    image.setAttribute("role", "img");
    image.removeAttribute("aria-hidden");
    image.setAttribute("aria-label", `histogram from ${short(s.low)} to ${short(s.high)}`);
    if (s.low < 0 && s.high > 0) {
      const zero = -s.low / (s.high - s.low) * 300;
      image.append(svg("path", { class: "guide", d: `M${zero.toFixed(1)} 0V70`, "vector-effect": "non-scaling-stroke" }));
    }
    box.append(image, element("div", { class: "ends" }, element("span", {}, short(s.low)), element("span", {}, short(s.high))));
  }
  const facts_ = [["mean", short(s.mean)], ["std", short(s.std)], ["norm", short(s.norm)]];
  box.append(element("p", { class: "numbers" }, facts_.map(([word, value]) => `${word} ${value}`).join("   ")));
  if (s.bad) box.append(element("p", {}, element("span", { class: "badge bad" }, `${whole(s.bad)} not finite`)));
  return box;
}

function drawDetail(row) {
  const host = byId("detail");
  const title = row.name || D.model;
  const close = element("button", { type: "button", class: "close", "aria-label": "Close",
    onclick: () => host.classList.remove("asked") }, "×");
  host.classList.add("asked");
  host.replaceChildren(close, element("h3", {}, title), ...(row.type === "module" ? ofModule(row) : ofParameter(row)));
}

function ofModule(m) {
  const own = m.count - (m.states.buffer || 0);
  const list = moduleBadges(m).map(({ kind, text }) => element("span", { class: `badge ${kind}` }, text));
  return [facts([
    ["class", m.kind && element("code", {}, m.kind)],
    [TENSORS ? "tensors" : "parameters",
      `${whole(own)}${m.trainable < own && !TENSORS ? `, ${whole(m.trainable)} trainable` : ""}`],
    ["buffers", m.states.buffer ? whole(m.states.buffer) : null],
    ["elements", whole(m.elements)],
    ["size", bytesText(m.bytes),
      m.index ? ` (${(100 * m.bytes / (MODULES[0].bytes || 1)).toFixed(1)}% of the whole)` : null],
    ["state", ...list],
    ["gradient norm", short(gradOf(m))],
    ["update ratio", short(updateOf(m))],
    ["modules in it", m.children.length ? whole(m.children.length) : null],
  ])];
}

function ofParameter(p) {
  const tags = badges(p).map(({ kind, text }) => element("span", { class: `badge ${kind}` }, text));
  const parts = [facts([
    ["shape", `${p.shape} ${p.dtype}`],
    ["on", p.device],
    ["elements", `${whole(p.elements)}, ${bytesText(p.bytes)}`],
    ["state", ...(tags.length ? tags : [STATE_WORDS[p.state]])],
    ["in", MODULES[p.module].kind && element("code", {}, MODULES[p.module].kind)],
    ["gradient", p.grad],
    ["by loss", ...(D.losses.length > 1 && p.losses.length
      ? [element("ul", { class: "names" }, ...D.losses.map((loss, n) => element("li", {}, `${loss}: ${p.losses[n]}`)))] : [])],
    ["update ratio", short(p.update)],
    ["moved", short(p.change)],
    ["optimizer", ...p.groups.map((g) => element("div", {}, D.groups[g]))],
  ])];
  if (p.aliases.length) {
    parts.push(element("h4", {}, "one parameter with"),
      element("ul", { class: "names" }, ...p.aliases.slice(0, 40).map(([name]) => element("li", {}, element("code", {}, name)))));
    if (p.aliases.length > 40) parts.push(element("p", {}, `and ${whole(p.aliases.length - 40)} more`));
  }
  for (const d of DIFFERENCES.get(p.name) || []) parts.push(element("p", { class: "note" }, `${d.kind}: ${d.text}`));
  for (const n of p.findings) parts.push(finding(D.findings[n], false));
  const most = p.values && p.values.sampled < (p.elements || 0) - p.values.bad
    ? ` (of ${whole(p.values.sampled)} of them)` : "";
  parts.push(distribution(`values${most}`, p.values), distribution("gradient", p.slope));
  return parts.filter(Boolean);
}

function finding(f, named = true) {
  const box = element("div", { class: "found" }, element("p", {}, element("strong", {}, f.problem),
    f.check ? element("span", { class: "check" }, ` ${f.check}`) : null));
  if (named && f.names.length) box.append(links(f.names, 8));
  if (f.text) box.append(element("p", {}, f.text));
  if (f.rows.length) {
    box.append(element("table", {}, element("tbody", {}, ...f.rows.slice(0, 12).map(([label, text]) =>
      element("tr", {}, element("th", { scope: "row" }, label), element("td", {}, text))))));
  }
  if (f.hint) box.append(element("p", { class: "advice" }, `hint: ${f.hint}`));
  return box;
}
