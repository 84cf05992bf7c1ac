"use strict";
// The graph before and after each pass, in the manner of Netron: blocks fold, nodes tell what they are.
(async () => {
  const place = document.getElementById("viewer");
  const packed = Uint8Array.from(atob(document.getElementById("stages").textContent), each => each.charCodeAt(0));
  const opened = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const { nodes, stages } = JSON.parse(await new Response(opened).text());
  const [NAME, OP, LINE, READS, BLOCK] = [0, 1, 2, 3, 4];
  const MARKS = { added: "+", removed: "−", changed: "~" };
  const state = { stage: 0, shown: "changes", open: new Set(), scale: 1, sought: "" };

  const make = (tag, attributes = {}, ...children) => {
    const svg = ["svg", "g", "rect", "text", "path", "title"].includes(tag);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  // name -> node, of a stage.
  const named = number => new Map((number < 0 ? [] : stages[number].nodes).map(each => [nodes[each][NAME], nodes[each]]));

  // name -> {node, was, mark} of what is to be shown of the pass that gave a stage.
  const compared = (number, shown) => {
    const [before, after] = [named(number - 1), named(number)], found = new Map();
    for (const [name, node] of shown === "before" && number ? before : after) found.set(name, { node, was: before.get(name), mark: "" });
    if (!number) return found;
    for (const [name, each] of found) {
      const other = shown === "before" ? after.get(name) : before.get(name);
      each.mark = !other ? (shown === "before" ? "removed" : "added") : other === each.node ? "" : "changed";
      if (shown === "before") each.was = undefined;
    }
    if (shown === "changes") for (const [name, node] of before) if (!after.has(name)) found.set(name, { node, mark: "removed" });
    return found;
  };

  const counts = each => Object.keys(MARKS).map(mark => [mark, each.filter(one => one.mark === mark).length]).filter(([, count]) => count);

  const blockName = block => {
    const [kind, number] = block.split(" ");
    return { feed_forward: "feed-forward" }[kind] ? `feed-forward ${+number + 1}` : kind === "head" ? "head" : `${kind} ${+number + 1}`;
  };

  // Group of every node: its block, or what lies between blocks.
  const grouped = found => {
    const groups = new Map(), seen = new Set();
    for (const [name, each] of found) {
      const block = each.node[BLOCK];
      if (block) seen.add(block);
      const key = block || `between ${seen.size}`;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(name);
    }
    return groups;
  };

  const bar = make("div", { class: "bar" });
  const chooser = make("select", { "aria-label": "the pass to show" });
  stages.forEach((stage, number) => {
    const tally = number ? counts([...compared(number, "changes").values()]).map(([mark, count]) => MARKS[mark] + count).join(" ") : `${stage.nodes.length} nodes`;
    if (number && tally) state.stage = number;  // the last pass that changed a line
    chooser.append(make("option", { value: number }, `${number}. ${stage.pass}  (${tally || "weights alone"})`));
  });
  const buttons = ["before", "changes", "after"].map(shown => make("button", { type: "button", "data-shown": shown }, shown));
  const search = make("input", { type: "search", placeholder: "search names, operators, shapes", "aria-label": "search the graph" });
  const [smaller, larger] = [["−", "smaller"], ["+", "larger"]].map(([sign, name]) => make("button", { type: "button", "aria-label": name }, sign));
  const legend = make("span", { class: "legend" });
  legend.append(...Object.entries(MARKS).flatMap(([mark, sign]) => [make("b", { class: "is-" + mark }, `${sign} ${mark}`), "  "]));
  bar.append(chooser, ...buttons, search, smaller, larger, legend);
  const canvas = make("div", { class: "canvas", tabindex: 0 }), side = make("div", { class: "side", "aria-live": "polite" });
  place.append(bar, make("div", { class: "stage" }, canvas, side));

  let found, groups, groupOf;
  const boxOf = name => (state.open.has(groupOf.get(name)) || groups.get(groupOf.get(name)).length === 1 ? "n:" + name : "g:" + groupOf.get(name));
  const matches = each => state.sought && `${each.node[NAME]} ${each.node[LINE]}`.toLowerCase().includes(state.sought);

  const draw = () => {
    found = compared(state.stage, state.shown);
    groups = grouped(found);
    groupOf = new Map([...groups].flatMap(([key, names]) => names.map(name => [name, key])));
    const graph = new dagre.graphlib.Graph({ compound: true, multigraph: false });
    graph.setGraph({ rankdir: "TB", nodesep: 14, ranksep: 26, marginx: 16, marginy: 16 });
    graph.setDefaultEdgeLabel(() => ({}));
    const boxes = new Map();
    for (const [key, names] of groups) {
      const members = names.map(name => found.get(name));
      const alone = names.length === 1, folded = !alone && !state.open.has(key);
      if (folded) {
        const tally = counts(members).map(([mark, count]) => MARKS[mark] + count).join(" ");
        const label = key.startsWith("between") ? `${names.length} operators` : blockName(key);
        boxes.set("g:" + key, { label: tally ? `${label}  ${tally}` : label, key, members, kind: key.split(" ")[0] });
      } else {
        if (!alone) graph.setNode("c:" + key, {}), boxes.set("c:" + key, { label: key.startsWith("between") ? "operators" : blockName(key), key, members, cluster: true });
        for (const name of names) {
          boxes.set("n:" + name, { label: found.get(name).node[OP].replace(/^aten\.|^ai\.onnx::|^com\.microsoft::/, ""), name, members: [found.get(name)], parent: alone ? null : "c:" + key });
        }
      }
    }
    for (const [id, box] of boxes) if (!box.cluster) {
      graph.setNode(id, { width: 22 + 7.1 * box.label.length, height: 26 });
      if (box.parent) graph.setParent(id, box.parent);
    }
    for (const [name, each] of found) for (const read of new Set(each.node[READS])) if (found.has(read)) {
      const [from, to] = [boxOf(read), boxOf(name)];
      if (from !== to) graph.setEdge(from, to);
    }
    dagre.layout(graph);
    const { width = 100, height = 100 } = graph.graph();
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width: width * state.scale, height: height * state.scale, role: "group", "aria-label": "graph" });
    for (const edge of graph.edges()) {
      const points = graph.edge(edge).points.map(({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`);
      svg.append(make("path", { d: "M" + points.join(" L") }));
    }
    const order = [...boxes].sort(([, a], [, b]) => !!b.cluster - !!a.cluster);
    for (const [id, box] of order) {
      const at = graph.node(id), [x, y] = [at.x - at.width / 2, at.y - at.height / 2];
      const marks = new Set(box.members.map(each => each.mark));
      const mark = box.cluster ? "" : marks.size === 1 ? [...marks][0] : "changed";
      const classes = ["node", box.name ? "" : "block", box.cluster ? "open" : mark, box.members.some(matches) && !box.cluster ? "found" : ""];
      const group = make("g", { class: classes.filter(Boolean).join(" "), transform: `translate(${x} ${y})`, "data-id": id, tabindex: 0, role: "button", "aria-label": box.label });
      group.append(make("rect", { width: at.width, height: at.height, rx: 4 }));
      if (!box.name && !box.cluster) group.append(make("rect", { class: "kind kind-" + box.kind, width: 4, height: at.height }));
      group.append(make("text", { x: box.cluster ? 8 : 12, y: box.cluster ? 14 : 17 }, box.label));
      const chosen = () => (box.name ? tell(box.name) : toggle(box.key));
      group.addEventListener("click", chosen);
      group.addEventListener("keydown", event => event.key === "Enter" && chosen());
      svg.append(group);
    }
    canvas.replaceChildren(svg);
    for (const button of buttons) button.setAttribute("aria-pressed", button.dataset.shown === state.shown);
  };

  const toggle = key => { state.open.has(key) ? state.open.delete(key) : state.open.add(key); draw(); reach((state.open.has(key) ? "c:" : "g:") + key); };

  const reach = id => {
    const box = [...canvas.querySelectorAll("[data-id]")].find(each => each.dataset.id === id);
    if (!box) return;
    const [inner, outer] = [box.getBoundingClientRect(), canvas.getBoundingClientRect()];
    canvas.scrollTop += inner.top - outer.top - Math.max(20, (outer.height - inner.height) / 2);
    canvas.scrollLeft += inner.left - outer.left - Math.max(20, (outer.width - inner.width) / 2);
  };

  const link = name => {
    const each = found.get(name), button = make("button", { type: "button" }, `${each.node[OP]}  ${name}`);
    if (each.mark) button.classList.add("is-" + each.mark);
    button.addEventListener("click", () => { state.open.add(groupOf.get(name)); draw(); tell(name); reach("n:" + name); });
    return button;
  };

  const tell = name => {
    const { node, was, mark } = found.get(name), shown = [make("h3", mark ? { class: "is-" + mark } : {}, name)];
    if (mark === "changed" && was) shown.push("before", make("code", {}, was[LINE]), "after");
    shown.push(make("code", {}, node[LINE]));
    if (node[BLOCK]) shown.push(make("p", { class: "soft" }, `in ${blockName(node[BLOCK])}`));
    const reads = [...new Set(node[READS])].filter(each => found.has(each));
    const readers = [...found].filter(([, each]) => each.node[READS].includes(name)).map(([each]) => each);
    for (const [title, names] of [["reads", reads], ["is read by", readers]]) if (names.length) shown.push(make("h3", {}, title), ...names.slice(0, 50).map(link));
    side.replaceChildren(...shown);
  };

  const seek = () => {
    state.sought = search.value.trim().toLowerCase();
    draw();
    if (!state.sought) return side.replaceChildren();
    const names = [...found].filter(([, each]) => matches(each)).map(([name]) => name);
    side.replaceChildren(make("h3", {}, `${names.length} found`), ...names.slice(0, 100).map(link));
  };

  const fit = () => { state.scale = Math.min(1, Math.max(0.85, (canvas.clientWidth - 4) / (canvas.firstChild.viewBox.baseVal.width || 1))); };
  chooser.addEventListener("change", () => { state.stage = +chooser.value; side.replaceChildren(); seek(); });
  for (const button of buttons) button.addEventListener("click", () => { state.shown = button.dataset.shown; seek(); });
  search.addEventListener("input", seek);
  smaller.addEventListener("click", () => { state.scale /= 1.25; draw(); });
  larger.addEventListener("click", () => { state.scale *= 1.25; draw(); });
  chooser.value = state.stage;
  draw(); fit(); draw();
  place.dataset.ready = "yes";
})();
