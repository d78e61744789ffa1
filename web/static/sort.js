// Sorts the rows of a table, as many as this page has of them, by the column whose name is pressed. A table that is
// swapped for a newer one stays sorted, and its focus where it was.

const chosen = new Map(); // by the table's name
let focused = '';

const collator = new Intl.Collator(document.documentElement.lang, { numeric: true });

/** What a cell is sorted by; null for none, which comes last. */
function valueOf(cell) {
  const text = cell.textContent.trim();
  if (!cell.classList.contains('number')) return text === '–' ? null : text;
  const number = /^-?\$?[\d,]*\.?\d+/.exec(text);
  return number && Number(number[0].replace(/[$,]/g, ''));
}

function compared(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  return sign * (typeof one === 'number' ? one - other : collator.compare(one, other));
}

function sort(table) {
  const { column, sign } = chosen.get(table.dataset.sort);
  [...table.tHead.rows[0].cells].forEach((head, index) => {
    if (index === column) head.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
    else head.removeAttribute('aria-sort');
  });
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: valueOf(row.cells[column]) }));
  table.tBodies[0].append(...rows.sort((one, other) => compared(one.value, other.value, sign)).map(({ row }) => row));
}

function press(table, column, isNumber) {
  const before = chosen.get(table.dataset.sort);
  const first = isNumber ? -1 : 1; // what is largest is looked for
  chosen.set(table.dataset.sort, { column, sign: before?.column === column ? -before.sign : first });
  sort(table);
}

function prepare(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (head.querySelector('.unseen')) return;
    const button = document.createElement('button');
    button.className = 'sort';
    button.id = `sort-${table.dataset.sort}-${column}`;
    button.append(...head.childNodes);
    button.addEventListener('click', () => press(table, column, head.classList.contains('number')));
    head.append(button);
  });
  if (chosen.has(table.dataset.sort)) sort(table);
  if (document.activeElement === document.body && focused) document.getElementById(focused)?.focus();
}

document.addEventListener('focusin', ({ target }) => (focused = target.matches('button.sort') ? target.id : ''));
htmx.onLoad((part) => part.querySelectorAll('table[data-sort]').forEach(prepare));
