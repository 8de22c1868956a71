for (const table of document.querySelectorAll("table.sort")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
    const number = head.classList.contains("n");
    const up = head.ariaSort ? head.ariaSort !== "ascending" : !number;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => number ? parseFloat(row.cells[i].textContent.replace(/[~▼x ]/g, "")) : row.cells[i].textContent;
    const order = (a, b) => {
      if (!number) return up ? a.localeCompare(b, "en", {numeric: true}) : b.localeCompare(a, "en", {numeric: true});
      const missing = value => !Number.isFinite(value);
      if (missing(a) || missing(b)) return missing(a) - missing(b);
      return up ? a - b : b - a;
    };
    body.append(...[...body.rows].map(row => [key(row), row]).sort((a, b) => order(a[0], b[0])).map(pair => pair[1]));
  }));
}
const closed = () => document.querySelectorAll("details:not([open])");
let opened = [];
addEventListener("beforeprint", () => (opened = [...closed()]).forEach(details => (details.open = true)));
addEventListener("afterprint", () => opened.forEach(details => (details.open = false)));
