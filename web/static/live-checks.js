// Says while one types whether an input has the form that its pattern asks for: in the text that describes it.

document.addEventListener('input', ({ target }) => {
  if (!target.dataset.right) return;
  const hint = document.getElementById(target.getAttribute('aria-describedby'));
  target.setCustomValidity('');
  const isRight = target.validity.valid;
  hint.textContent = isRight ? target.dataset.right : target.dataset.wrong;
  hint.classList.toggle('good', isRight);
  hint.classList.toggle('warn', !isRight);
  if (target.validity.patternMismatch) target.setCustomValidity(target.dataset.wrong);
});
