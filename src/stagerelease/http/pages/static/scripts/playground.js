// Shows a continuation as it is written, lets one stop it, and keeps its label when it is copied.
// Without this file the form is sent, and the finished text comes back as a page.
(() => {
  "use strict";
  const form = document.querySelector("form[data-stream]");
  if (!form) return;
  const box = form.querySelector("[name=prompt]");
  const stop = form.querySelector("[data-stop]");
  const tell = document.getElementById("telling");
  const room = document.getElementById("written");
  const made = (tag, name, text) => {
    const one = document.createElement(tag);
    if (name) one.className = name;
    if (text) one.textContent = text;
    return one;
  };
  let running = null;

  const label = (values) => `Written by a machine: ${values.get("model")}, seed ${values.get("seed")}`;

  // What is taken from here says what it is, wherever it goes.
  room.addEventListener("copy", (event) => {
    const figure = room.querySelector("figure");
    if (!figure) return;
    const said = figure.querySelector("figcaption").textContent;
    event.clipboardData.setData("text/plain", `[${said}]\n\n${window.getSelection()}`);
    event.preventDefault();
  });

  const lay = (values, count) => {
    const figure = made("figure", "machine");
    const caption = made("figcaption", "", label(values));
    caption.id = "by-machine";
    figure.setAttribute("aria-labelledby", "by-machine");
    figure.append(caption);
    const lines = [];
    for (let n = 0; n < count; n += 1) {
      const line = made("div", count === 1 ? "prose-box" : "choice");
      const text = made("mark");
      if (count === 1) line.append(made("span", "", values.get("prompt")));
      line.append(text);
      figure.append(line);
      lines.push({ line, text });
    }
    room.replaceChildren(figure);
    return { figure, lines };
  };

  const finish = (values, shown, count) => {
    for (const { line, text } of shown.lines) {
      if (!text.textContent) continue;
      const take = made("button", "", count === 1 ? "Put it into the box" : "Go on with this one");
      take.type = "button";
      take.addEventListener("click", () => {
        box.value = values.get("prompt") + text.textContent;
        room.replaceChildren();
        tell.textContent = "It is in the box; change what you like and go on.";
        box.focus();
        box.setSelectionRange(box.value.length, box.value.length);
      });
      if (count === 1) {
        const copy = made("button", "", "Copy with its label");
        copy.type = "button";
        copy.addEventListener("click", async () => {
          const whole = `[${label(values)}]\n\n${values.get("prompt")}${text.textContent}`;
          try { await navigator.clipboard.writeText(whole); copy.textContent = "Copied"; }
          catch { copy.textContent = "Select the text and press Ctrl+C"; }
        });
        shown.figure.append(copy, " ", take);
      } else line.append(take);
    }
  };

  const events = async (body, each) => {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let kept = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      kept += value;
      let cut;
      while ((cut = kept.indexOf("\n\n")) >= 0) {
        const data = kept.slice(0, cut).split("\n").filter((l) => l.startsWith("data:"))
          .map((l) => l.slice(5).trim()).join("\n");
        kept = kept.slice(cut + 2);
        if (data && data !== "[DONE]") each(JSON.parse(data));
      }
    }
  };

  const refused = (said) => {
    const error = said.error || {};
    const fields = (said.fields || []).map((one) => one.sentence).join(" ");
    return new Error(fields || error.message || [said.detail, said.next_step].filter(Boolean).join(" "));
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
    if (running) return;
    const which = event.submitter ? event.submitter.value : "one";
    const count = which === "three" ? 3 : 1;
    const values = new URLSearchParams(new FormData(form));
    values.set("do", which);
    if (!values.get("seed")) values.set("seed", String(crypto.getRandomValues(new Uint32Array(1))[0] >>> 1));
    running = new AbortController();
    stop.hidden = false;
    tell.textContent = "The machine is writing.";
    let shown = null;
    try {
      const answer = await fetch(form.dataset.stream, {
        method: "POST", headers: { Accept: "application/json" }, body: values, signal: running.signal,
      });
      if (!answer.ok) throw refused(await answer.json());
      shown = lay(values, count);
      const kept = answer.headers.get("x-stagerelease-prompt-logging") === "on";
      if (kept) shown.figure.append(made("p", "quiet small", "What you wrote was kept."));
      await events(answer.body, (piece) => {
        if (piece.error) throw refused(piece);
        for (const choice of piece.choices || []) shown.lines[choice.index].text.textContent += choice.text;
      });
      tell.textContent = "The machine has finished.";
    } catch (error) {
      tell.textContent = error.name === "AbortError"
        ? "You stopped it." : `It stopped: ${error.message || "the connection was lost. Try again."}`;
    }
    if (shown) finish(values, shown, count);
    stop.hidden = true;
    running = null;
    if (!form.contains(document.activeElement)) form.querySelector("button").focus();
  }, { capture: true });
  stop.addEventListener("click", () => { if (running) running.abort(); });
})();
