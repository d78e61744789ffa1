// Draws the charts of a page from the figures that stand beside them; without it there is the table.

// As the server writes amounts: small ones to the digit that counts.
function dollars(amount) {
  const digits = amount === 0 || amount >= 1 ? 2 : amount >= 0.001 ? 4 : 7;
  return `$${amount.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
}

const dayOf = (seconds) => new Date(seconds * 1000);
const shortDay = new Intl.DateTimeFormat(document.documentElement.lang, { month: 'short', day: 'numeric', timeZone: 'UTC' });
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const WHOLE_DAYS = [1, 2, 3, 7, 14, 28, 91, 364].map((days) => days * 86_400);

for (const place of document.querySelectorAll('[data-chart]')) {
  const { days, cost, requests } = JSON.parse(place.dataset.chart);
  const [day, spent, asked] = JSON.parse(place.dataset.names);
  const axis = { stroke: style('--soft'), grid: { stroke: style('--line'), width: 1 }, ticks: { show: false } };
  const chart = new uPlot(
    {
      width: place.clientWidth,
      height: place.clientHeight - 40,
      tzDate: (seconds) => uPlot.tzDate(dayOf(seconds), 'UTC'),
      cursor: { points: { size: 7 } },
      scales: { requests: { range: (_, least, most) => [0, Math.max(most, 1)] }, cost: { range: (_, least, most) => [0, most || 1] } },
      axes: [{ ...axis, grid: { show: false }, space: 64, incrs: WHOLE_DAYS, values: (_, ticks) => ticks.map((tick) => shortDay.format(dayOf(tick))) }, { ...axis, scale: 'cost', size: 84, values: (_, ticks) => ticks.map((tick) => `$${+tick.toPrecision(6)}`) }, { ...axis, scale: 'requests', side: 1, grid: { show: false } }],
      series: [
        { label: day, value: (_, seconds) => (seconds == null ? '' : dayOf(seconds).toISOString().slice(0, 10)) },
        { label: spent, scale: 'cost', stroke: style('--accent'), width: 2, fill: `color-mix(in srgb, ${style('--accent')} 14%, transparent)`, value: (_, value) => (value == null ? '' : dollars(value)) },
        { label: asked, scale: 'requests', stroke: style('--good'), width: 1.5, dash: [4, 4], value: (_, value) => value ?? '' },
      ],
    },
    [days, cost, requests],
    place,
  );
  new ResizeObserver(() => {
    if (place.clientWidth !== chart.width) chart.setSize({ width: place.clientWidth, height: place.clientHeight - 40 });
  }).observe(place);
}
