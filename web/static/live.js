// Keeps parts of a page as things are at this moment. The server sends a part when it has changed, for some seconds at a
// time, and the browser asks again by itself. Nobody looks at a hidden page, so it asks for nothing.

const AGAIN_MS = 15_000;
const MOST_FAILURES = 8;

for (const place of document.querySelectorAll('[data-live]')) follow(place);

function follow(place) {
  const pause = document.querySelector(`[data-pause="${place.id}"]`);
  let source, timer;
  let failures = 0;
  let seen = '';

  function start() {
    stop();
    if (document.hidden || pause.getAttribute('aria-pressed') === 'true') return;
    source = new EventSource(place.dataset.live);
    source.addEventListener('part', (event) => {
      failures = 0;
      if (event.lastEventId === seen) return;
      seen = event.lastEventId;
      const before = [...place.querySelectorAll('.scroll')].map((scroll) => scroll.scrollLeft);
      const stay = () => place.querySelectorAll('.scroll').forEach((scroll, index) => (scroll.scrollLeft = before[index] ?? 0));
      htmx.swap(place, event.data, { swapStyle: 'innerHTML', settleDelay: 0 }, { afterSwapCallback: stay });
    });
    source.addEventListener('over', () => location.reload());
    source.addEventListener('error', () => {
      if (source.readyState !== EventSource.CLOSED) return; // it asks again by itself
      failures += 1;
      if (failures < MOST_FAILURES) timer = setTimeout(start, AGAIN_MS);
      else pause.replaceWith(place.dataset.stopped);
    });
  }

  function stop() {
    clearTimeout(timer);
    source?.close();
  }

  pause.addEventListener('click', () => {
    pause.setAttribute('aria-pressed', pause.getAttribute('aria-pressed') === 'false');
    start();
  });
  document.addEventListener('visibilitychange', start);
  start();
}
