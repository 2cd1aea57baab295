"use strict";
(() => {
  const make = (tag, options, parent) => {
    const made = Object.assign(document.createElement(tag), options);
    parent?.append(made);
    return made;
  };
  const mark = (element, attributes) => Object.entries(attributes).forEach(one => element.setAttribute(...one));
  const status = make("p", {className: "unseen"}, document.body);
  mark(status, {role: "status"});

  // Tables: a button in each header sorts, and a box filters the rows of a long table.
  const shown = cell => {
    const text = cell.textContent.trim();
    return text && !text.startsWith("not measured") ? text : null;
  };
  const number = text => /^[+\-−]?(\d|∞)/.test(text)
    ? parseFloat(text.replaceAll(",", "").replace("−", "-").replace("∞", "Infinity")) : NaN;

  for (const table of document.querySelectorAll("table:not(.key, .heat)")) {
    const [body] = table.tBodies, rows = [...body.rows], heads = [...(table.tHead?.rows[0].cells ?? [])];
    if (rows.length < 2) continue;
    heads.forEach((head, i) => {
      if (!head.textContent.trim()) return;
      const button = make("button", {type: "button", className: "sort"});
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const way = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        const sign = way === "ascending" ? 1 : -1;
        heads.forEach(other => other.removeAttribute("aria-sort"));
        mark(head, {"aria-sort": way});
        const keys = new Map(rows.map(row => [row, shown(row.cells[i])]));
        const numeric = [...keys.values()].every(key => key === null || !isNaN(number(key)));
        body.append(...[...rows].sort((one, other) => {
          const a = keys.get(one), b = keys.get(other);
          if (a === null || b === null) return (a === null) - (b === null);
          return sign * (numeric ? number(a) - number(b) || 0 : a.localeCompare(b, undefined, {numeric: true}));
        }));
        status.textContent = `Sorted by ${head.textContent.trim()}, ${way}`;
      });
    });
    if (rows.length < 12) continue;
    const box = table.closest(".box"), bar = make("p", {className: "filter"});
    const input = make("input", {type: "search"}, make("label", {textContent: "Filter rows "}, bar));
    const count = make("output", {}, bar);
    mark(input, {"aria-label": `Filter rows: ${box.getAttribute("aria-label")}`});
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      rows.forEach(row => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
      count.textContent = wanted ? `${rows.filter(row => !row.hidden).length} of ${rows.length} rows` : "";
    });
    box.before(bar);
  }

  // Plots: a legend of buttons that switch series off, and the values of the nearest point.
  for (const figure of document.querySelectorAll("figure")) {
    const {names, series} = JSON.parse(figure.querySelector("script").textContent);
    const view = figure.querySelector(".view"), svg = view.querySelector("svg"), off = new Set();
    const tip = make("div", {className: "tip", hidden: true}, view);
    const ring = document.createElementNS(svg.namespaceURI, "circle");
    mark(ring, {class: "ring", r: 5});
    let at = null;

    const scale = () => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    const hide = () => {
      tip.hidden = true;
      ring.remove();
    };
    const show = (i, j, aloud) => {
      at = [i, j];
      const [x, y, ...texts] = series[i].points[j], left = x * scale(), top = y * scale();
      const lines = names.flatMap((name, k) => texts[k] ? [`${name}: ${texts[k]}`] : []);
      const title = texts[names.length] || series[i].name;
      tip.replaceChildren(make("strong", {textContent: title}), ...lines.map(text => make("div", {textContent: text})));
      tip.hidden = false;
      const right = view.clientWidth - tip.offsetWidth, above = top - tip.offsetHeight - 10;
      tip.style.left = `${Math.max(0, Math.min(left - tip.offsetWidth / 2, right))}px`;
      tip.style.top = `${above < 0 ? top + 12 : above}px`;
      mark(ring, {cx: x, cy: y});
      svg.append(ring);
      if (aloud) status.textContent = [title, ...lines].join(", ");
    };
    const on = () => [...series.keys()].filter(i => !off.has(i) && series[i].points.length);
    const nearest = (x, y, among, flat) => {
      let best = null, least = Infinity;
      for (const i of among) series[i].points.forEach((point, j) => {
        const far = Math.hypot(point[0] - x, flat ? 0 : point[1] - y);
        if (far < least) [best, least] = [[i, j], far];
      });
      return [best, least];
    };

    figure.querySelectorAll(".legend li").forEach((item, i) => {
      const button = make("button", {type: "button"});
      mark(button, {"aria-pressed": true});
      button.append(...item.childNodes);
      item.append(button);
      button.addEventListener("click", () => {
        off[off.has(i) ? "delete" : "add"](i);
        mark(button, {"aria-pressed": !off.has(i)});
        const parts = svg.querySelectorAll(`[id^="${figure.id}-s${i}-"]`);
        parts.forEach(part => { part.style.display = off.has(i) ? "none" : ""; });
        if (at && off.has(at[0])) at = null;
        hide();
      });
    });
    if (!on().length) continue;
    const label = `${figure.querySelector("h3").textContent}. Arrow keys move between points, Escape closes.`;
    mark(view, {tabindex: 0, role: "application", "aria-roledescription": "plot", "aria-label": label});
    view.addEventListener("focus", () => {
      if (view.matches(":focus-visible") && on().length) show(...(at ?? [on()[0], 0]), true);
    });
    view.addEventListener("blur", hide);
    view.addEventListener("keydown", event => {
      const among = on(), step = {ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity}[event.key];
      const turn = {ArrowUp: -1, ArrowDown: 1}[event.key];
      if (!among.length || (step ?? turn) === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      if (!at || tip.hidden) return show(...(at ?? [among[0], 0]), true);
      const [i, j] = at, last = series[i].points.length - 1;
      if (step) return show(i, Math.max(0, Math.min(last, j + step)), true);
      const next = among[(among.indexOf(i) + turn + among.length) % among.length];
      show(...nearest(series[i].points[j][0], 0, [next], true)[0], true);
    });
    const point = event => {
      const box = svg.getBoundingClientRect(), by = scale();
      const [best, far] = nearest((event.clientX - box.left) / by, (event.clientY - box.top) / by, on());
      if (best && far < 40) show(...best, false);
      else hide();
    };
    view.addEventListener("pointermove", point);
    view.addEventListener("pointerdown", point);
    view.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") hide(); });
    document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
  }
})();
