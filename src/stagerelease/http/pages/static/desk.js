// Keys for staff: comfort only. Off with one switch, and never while somebody types.
(() => {
  "use strict";
  const OFF = "keys-off";
  const dialog = document.getElementById("keys");
  const turn = document.getElementById("keys-switch");
  const off = () => localStorage.getItem(OFF) === "yes";
  const links = () =>
    [...document.querySelectorAll("table[data-rows] tbody tr")]
      .map((row) => row.querySelector("a"))
      .filter(Boolean);
  const step = (by) => {
    const all = links();
    if (!all.length) return;
    const row = document.activeElement.closest("tr");
    const at = all.findIndex((link) => row && row.contains(link));
    const next = all[Math.max(0, Math.min(all.length - 1, at === -1 ? 0 : at + by))];
    next.focus();
    next.closest("tr").scrollIntoView({ block: "nearest" });
  };
  const tell = () => {
    if (!turn) return;
    turn.textContent = off() ? "Turn the keys on" : "Turn the keys off";
    turn.setAttribute("aria-pressed", String(off()));
  };
  tell();
  turn?.addEventListener("click", () => {
    localStorage.setItem(OFF, off() ? "no" : "yes");
    tell();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input, textarea, select, dialog, [contenteditable]")) return;
    if (event.key === "?" && dialog) {
      event.preventDefault();
      dialog.showModal();
      return;
    }
    if (off()) return;
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "/") {
      const box = document.querySelector("[data-search]");
      if (!box) return;
      event.preventDefault();
      box.focus();
      box.select();
    }
  });
})();
