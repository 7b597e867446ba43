"use strict";
// Everything is there without this: it sorts tables, ties plots to rows, and copies the command.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
      const compared = (a, b) => {
        const [x, y] = [key(a), key(b)];
        // What has no value stays below, whichever way the rest is sorted.
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return up ? order : -order;
      };
      body.append(...[...body.rows].sort(compared));
    });
  });
}
let lit = "";
const show = (setting) => {
  if (setting === lit) return;
  for (const one of document.querySelectorAll(".lit")) one.classList.remove("lit");
  lit = setting;
  if (!setting) return;
  const wanted = `[data-setting="${CSS.escape(setting)}"]`;
  for (const one of document.querySelectorAll(wanted)) one.classList.add("lit");
};
document.addEventListener("pointerover", (event) => {
  const near = event.target.closest?.("[data-setting]");
  show(near ? near.dataset.setting : "");
});
for (const block of document.querySelectorAll("pre.command")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "copy";
  button.addEventListener("click", () => {
    const range = document.createRange();
    range.selectNodeContents(block);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    const done = navigator.clipboard?.writeText(block.textContent);
    done?.then(() => { button.textContent = "copied"; }, () => { button.textContent = "selected"; });
    if (!done) button.textContent = "selected";
  });
  block.after(button);
}
