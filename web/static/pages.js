// What all pages do: send the session's token with every change, say what went wrong, show times as the reader's clock
// does, remember language and appearance.

const csrfToken = document.querySelector('meta[name="csrf-token"]')?.content;

document.addEventListener('htmx:configRequest', (event) => {
  if (csrfToken) event.detail.headers['X-CSRF-Token'] = csrfToken;
});

/** Say at each field of a form what is wrong with it. False if not even one of the faults has a field here. */
function tellAtFields(form, faults) {
  const texts = new Map(faults.map((fault) => [fault.dataset.fault, fault.textContent]));
  const told = [...form.elements].filter((field) => field.type !== 'hidden' && texts.has(field.name));
  for (const field of told) {
    const note = document.createElement('small');
    note.className = 'error fault';
    note.id = `fault-${form.closest('[id]')?.id}-${field.name}`;
    note.textContent = texts.get(field.name);
    field.after(note);
    field.setAttribute('aria-invalid', 'true');
    field.setAttribute('aria-describedby', note.id);
  }
  told[0]?.focus();
  return told.length > 0;
}

for (const misread of document.querySelectorAll('[data-misread]')) {
  const faults = [...misread.querySelectorAll('[data-fault]')];
  if (tellAtFields(document.querySelector('main form[method="get"]'), faults)) misread.hidden = true;
}

document.addEventListener('htmx:beforeRequest', ({ detail: { elt } }) => {
  for (const note of elt.querySelectorAll('.fault')) note.remove();
  for (const field of elt.querySelectorAll('[aria-invalid]')) {
    field.removeAttribute('aria-invalid');
    field.removeAttribute('aria-describedby');
  }
});

document.addEventListener('htmx:responseError', (event) => {
  const page = new DOMParser().parseFromString(event.detail.xhr.responseText, 'text/html');
  const faults = [...page.querySelectorAll('[data-fault]')];
  if (event.detail.elt.tagName === 'FORM' && tellAtFields(event.detail.elt, faults)) return;
  const text = page.querySelector('[role="alert"]')?.textContent ?? event.detail.xhr.statusText;
  const place = event.detail.elt.querySelector?.('.error');
  if (!place) return notify(text);
  place.textContent = text;
  place.hidden = false;
});

document.addEventListener('htmx:sendError', () => notify('The service can’t be reached'));

// A part that was put in place of another has taken the focus with it: who uses the keyboard goes on at its begin. Who
// had the focus nowhere keeps it so: parts that keep themselves up to date call for nobody.
let focused = null;
document.addEventListener('focusin', ({ target }) => { focused = target; });
document.addEventListener('pointerdown', () => { focused = null; });
document.addEventListener('htmx:afterSettle', ({ detail }) => {
  if (document.activeElement !== document.body || !focused || focused.isConnected) return;
  detail.elt.tabIndex = -1;
  detail.elt.focus({ preventScroll: true });
});

/** Show a text for some seconds, and say it to screen readers. */
export function notify(text) {
  const line = document.createElement('p');
  line.textContent = text;
  document.getElementById('notices').append(line);
  setTimeout(() => line.remove(), 6000);
}

for (const select of document.querySelectorAll('select[data-choose]')) {
  select.addEventListener('change', () => {
    document.cookie = `${select.dataset.choose}=${select.value}; path=/; max-age=31536000; samesite=lax`;
    location.reload();
  });
}

document.addEventListener('click', async (event) => {
  const opener = event.target.closest('[data-open]');
  if (opener) document.getElementById(opener.dataset.open).showModal();
  if (event.target.closest('[data-close]')) event.target.closest('dialog').close();
  const dismiss = event.target.closest('[data-dismiss]');
  if (dismiss) {
    document.cookie = `${dismiss.dataset.dismiss}=off; path=/; max-age=31536000; samesite=lax`;
    dismiss.closest('section').remove();
  }
  const preset = event.target.closest('[data-fill]');
  if (preset) for (const [name, text] of Object.entries(JSON.parse(preset.dataset.fill))) preset.form.elements[name].value = text;
  const button = event.target.closest('[data-copy]');
  if (!button) return;
  const place = document.getElementById(button.dataset.copy);
  getSelection().selectAllChildren(place); // over plain http browsers give pages no clipboard: it is marked, at least
  if (!navigator.clipboard) return;
  await navigator.clipboard.writeText(place.textContent);
  notify(button.dataset.copied);
});

document.addEventListener('copy', (event) => { // of a short name, the whole one
  const selected = getSelection();
  const short = [selected.anchorNode, selected.anchorNode?.childNodes[selected.anchorOffset]]
    .map((node) => (node?.closest ? node : node?.parentElement)?.closest('abbr.short'))
    .find((one) => one?.textContent === selected.toString().trim());
  if (!short) return;
  event.clipboardData.setData('text/plain', short.title);
  event.preventDefault();
});

document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest('input, select, textarea, [contenteditable], dialog')) return;
  const search = document.querySelector('main [type="search"]') ?? document.querySelector('.side [type="search"]');
  if (!search) return;
  event.preventDefault();
  search.focus();
});

// Where a table is too narrow for its columns, each row is a card (pages.css), in which every cell says what it is.
function nameCells(part) {
  for (const table of part.querySelectorAll('.scroll table')) {
    const [head, ...rows] = table.rows;
    const names = [...head.cells].map((cell) => (cell.querySelector('.unseen') ? '' : cell.textContent.trim()));
    for (const row of rows) for (const [place, cell] of [...row.cells].entries()) cell.dataset.label = names[place] ?? '';
  }
}
htmx.onLoad(nameCells);

const two = (number) => String(number).padStart(2, '0');

/** A moment of the reader's own clock, as the server writes it in UTC: 2026-11-22 00:34:36. */
function ownClock(moment) {
  const day = [moment.getFullYear(), two(moment.getMonth() + 1), two(moment.getDate())].join('-');
  return `${day} ${[moment.getHours(), moment.getMinutes(), moment.getSeconds()].map(two).join(':')}`;
}

// UTC is shown on hover. A text that is a day alone stays: days are counted in UTC here.
function showOwnClock(part) {
  for (const time of part.querySelectorAll('time:not([title])')) {
    const utc = /^(\d{4}-)?\d\d-\d\d \d\d:\d\d(:\d\d)?$/.exec(time.textContent);
    if (!utc) continue;
    const from = utc[1] ? 0 : 5;
    time.title = `${utc[0]} UTC`;
    time.textContent = ownClock(new Date(time.dateTime)).slice(from, from + utc[0].length);
  }
}
htmx.onLoad(showOwnClock);
