"use strict";
// Sorts a table by the column whose head is pressed, and filters its rows. Without it, all of the page can be read.

const collator = new Intl.Collator(undefined, {numeric: true, sensitivity: "base"});

function makeSortable(table) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      body.append(...sorted(rows, head.cellIndex, head.classList.contains("number"), order === "descending"));
    });
  }
}

function sorted(rows, column, numeric, descending) {
  const keyed = rows.map(row => {
    const cell = row.cells[column], text = cell.dataset.exact ?? cell.textContent;
    return {row, missing: cell.classList.contains("missing"), key: numeric ? Number(text.replaceAll(",", "")) : text};
  });
  const compare = numeric ? (a, b) => a - b || 0 : collator.compare;  // two infinities are equal, their difference is NaN
  const sign = descending ? -1 : 1;
  keyed.sort((a, b) => a.missing - b.missing || (a.missing ? 0 : sign * compare(a.key, b.key)));
  return keyed.map(item => item.row);
}

function makeFilter(controls) {
  const [text, state] = [controls.querySelector("input"), controls.querySelector("select")];
  const rows = [...document.getElementById(controls.dataset.table).tBodies[0].rows];
  const texts = rows.map(row => [...row.cells].map(cell => cell.textContent.toLowerCase()));
  const filter = () => {
    const wanted = text.value.trim().toLowerCase();
    let shown = 0;
    rows.forEach((row, at) => {
      const fits = texts[at].some(cell => cell.includes(wanted));
      const inState = !state?.value || row.cells[Number(state.dataset.column)].textContent === state.value;
      row.classList.toggle("filtered", !(fits && inState));
      shown += fits && inState;
    });
    controls.querySelector("output").textContent = `${shown} of ${rows.length} ${controls.dataset.noun}`;
  };
  text.addEventListener("input", filter);
  state?.addEventListener("change", filter);
  controls.hidden = false;
  filter();
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll(".filter").forEach(makeFilter);
