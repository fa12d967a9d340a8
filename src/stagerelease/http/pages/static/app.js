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
  // A draft that was saved once saves itself from then on, ten seconds after it was changed. Before
  // that nothing typed leaves the browser unasked.
  for (const button of document.querySelectorAll('button[name="_do"][value="save"]')) {
    const form = button.form;
    const address = form.getAttribute("action");
    if (!document.querySelector(`form[action="${CSS.escape(`${address}/discard`)}"]`)) continue;
    const note = document.createElement("p");
    note.setAttribute("aria-live", "polite");
    button.parentElement.after(note);
    let waiting = 0;
    const save = async () => {
      waiting = 0;
      const body = new URLSearchParams(new FormData(form));
      body.set("_do", "save");
      try {
        const answer = await fetch(address, { method: "POST", body });
        if (!answer.ok) throw new Error(String(answer.status));
        note.textContent = `Draft saved at ${new Date().toLocaleTimeString()}.`;
      } catch {
        note.textContent = "The draft could not be saved by itself just now. Press Save draft.";
      }
    };
    form.addEventListener("input", () => { waiting ||= setTimeout(save, 10000); });
    form.addEventListener("submit", () => { clearTimeout(waiting); });
  }
  // After a refusal the list of what is wrong is where one reads on.
  const summary = document.getElementById("errors");
  if (summary) summary.focus();
})();
