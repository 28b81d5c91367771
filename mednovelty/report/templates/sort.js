"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    const rows = [...body.rows].map(row => {
      const cell = row.cells[column], key = cell.dataset.key;
      return { row, text: cell.textContent.trim(), numeric: key !== undefined, key: key ? Number(key) : NaN };
    });
    rows.sort((one, other) => {
      if (one.numeric || other.numeric) {
        const lost = Number.isNaN(one.key) - Number.isNaN(other.key);
        return lost || (down ? other.key - one.key : one.key - other.key) || 0;
      }
      return (down ? -1 : 1) * one.text.localeCompare(other.text, "en", { numeric: true });
    });
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows.map(entry => entry.row));
  }));
}
