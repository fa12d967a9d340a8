// Comfort only: every page works without this file. No inline script, nothing from elsewhere.
(() => {
  "use strict";
  // Warn before leaving a form that was changed and not sent.
  for (const form of document.querySelectorAll("form[data-guard]")) {
    let changed = false;
    form.addEventListener("input", () => { changed = true; });
    form.addEventListener("submit", () => { changed = false; });
    window.addEventListener("beforeunload", (event) => {
      if (changed) event.preventDefault();
    });
  }
  // Count what is left of a long answer.
  for (const area of document.querySelectorAll("textarea[data-most]")) {
    const most = Number(area.dataset.most);
    const note = document.createElement("p");
    note.className = "count";
    note.setAttribute("aria-hidden", "true");
    const tell = () => {
      note.textContent = `${area.value.length.toLocaleString("en")} of ${most.toLocaleString("en")} characters`;
    };
    area.after(note);
    area.addEventListener("input", tell);
    tell();
  }
  // Copy what is shown once.
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const from = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(from.textContent.trim());
        button.textContent = "Copied";
      } catch {
        const range = document.createRange();
        range.selectNodeContents(from);
        const chosen = window.getSelection();
        chosen.removeAllRanges();
        chosen.addRange(range);
        button.textContent = "Selected: press Ctrl+C";
      }
    });
  }
  // A form is sent once, however often its button is pressed.
  for (const form of document.querySelectorAll("form[method=post]")) {
    form.addEventListener("submit", (event) => {
      if (form.dataset.sent) { event.preventDefault(); return; }
      form.dataset.sent = "yes";
      window.addEventListener("pageshow", () => { delete form.dataset.sent; }, { once: true });
    });
  }
  // After a refusal the list of what is wrong is where one reads on.
  const summary = document.getElementById("errors");
  if (summary) summary.focus();
})();
