// Checks the proof of a log entry with nothing but the browser's own cryptography (WebCrypto).
// Hashes: RFC 9162, section 2.1. Notes and proofs: c2sp.org/signed-note, tlog-checkpoint, tlog-proof.
(() => {
  "use strict";
  class Refused extends Error {}
  const utf8 = new TextEncoder();
  const fromBase64 = (text) => {
    let plain;
    try { plain = atob(text); } catch { throw new Refused("something that should be base64 is not"); }
    if (btoa(plain) !== text) throw new Refused("something is not canonical base64");
    return Uint8Array.from(plain, (c) => c.charCodeAt(0));
  };
  const toBase64 = (bytes) => btoa(String.fromCharCode(...bytes));
  const hex = (bytes) => [...bytes].map((b) => b.toString(16).padStart(2, "0")).join("");
  const join = (...parts) => {
    const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) { whole.set(part, at); at += part.length; }
    return whole;
  };
  const same = (a, b) => a.length === b.length && a.every((byte, n) => byte === b[n]);
  const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const leafHash = (body) => sha256(join(Uint8Array.of(0), body));
  const nodeHash = (left, right) => sha256(join(Uint8Array.of(1), left, right));

  const number = (text) => {
    if (!/^(0|[1-9][0-9]{0,14})$/.test(text)) throw new Refused("a number is not one");
    return Number(text);
  };
  const half = (n) => Math.floor(n / 2);
  const odd = (n) => n % 2 === 1;

  const readProof = (text) => {
    const cut = text.indexOf("\n\n");
    const lines = text.slice(0, cut).split("\n");
    if (cut < 0 || lines.shift() !== "c2sp.org/tlog-proof@v1") throw new Refused("this is no proof");
    if (lines[0].startsWith("extra ")) lines.shift();
    const idx = number((lines.shift() || "").replace(/^index /, ""));
    const hashes = lines.map(fromBase64);
    if (hashes.some((h) => h.length !== 32)) throw new Refused("a hash has not 32 bytes");
    return { idx, hashes, note: text.slice(cut + 2) };
  };
  const readNote = (note) => {
    const cut = note.lastIndexOf("\n\n");
    if (cut < 0 || !note.endsWith("\n")) throw new Refused("the checkpoint is no signed note");
    const text = note.slice(0, cut + 1);
    const signatures = note.slice(cut + 2, -1).split("\n").map((line) => {
      const [dash, name, data, more] = line.split(" ");
      if (dash !== "\u2014" || !data || more) throw new Refused("a signature line has another form");
      const blob = fromBase64(data);
      return { name, id: blob.slice(0, 4), signature: blob.slice(4) };
    });
    const [origin, size, root, ...rest] = text.split("\n");
    if (!rest.length) throw new Refused("the checkpoint is cut short");
    return { text, signatures, origin, size: number(size), root: fromBase64(root) };
  };
  const readKey = async (vkey) => {
    const [name, id, ...rest] = vkey.split("+");
    const data = fromBase64(rest.join("+"));
    const expected = await sha256(join(utf8.encode(`${name}\n`), data));
    if (data[0] !== 1 || data.length !== 33 || hex(expected.slice(0, 4)) !== id) {
      throw new Refused("the log's key does not match its own name");
    }
    return { name, id: expected.slice(0, 4), bytes: data.slice(1) };
  };

  const checkInclusion = async (leaf, idx, size, hashes, root) => {
    if (idx >= size) throw new Refused("the entry is newer than the checkpoint");
    let [fn, sn, r] = [idx, size - 1, leaf];
    for (const p of hashes) {
      if (sn === 0) throw new Refused("the proof is too long");
      if (odd(fn) || fn === sn) {
        r = await nodeHash(p, r);
        while (fn && !odd(fn)) { fn = half(fn); sn = half(sn); }
      } else r = await nodeHash(r, p);
      fn = half(fn); sn = half(sn);
    }
    if (sn !== 0) throw new Refused("the proof is too short");
    if (!same(r, root)) throw new Refused("the path leads to another root than the signed one");
  };
  const checkConsistency = async (old, oldRoot, size, root, proof) => {
    if (old === size) {
      if (!same(oldRoot, root)) throw new Refused("two logs of the same length differ");
      return;
    }
    const path = [...proof];
    if (Number.isInteger(Math.log2(old))) path.unshift(oldRoot);
    if (!path.length) throw new Refused("the proof that the log only grew is missing");
    let [fn, sn] = [old - 1, size - 1];
    while (odd(fn)) { fn = half(fn); sn = half(sn); }
    let [fr, sr] = [path[0], path[0]];
    for (const c of path.slice(1)) {
      if (sn === 0) throw new Refused("the proof that the log only grew is too long");
      if (odd(fn) || fn === sn) {
        fr = await nodeHash(c, fr); sr = await nodeHash(c, sr);
        while (fn && !odd(fn)) { fn = half(fn); sn = half(sn); }
      } else sr = await nodeHash(sr, c);
      fn = half(fn); sn = half(sn);
    }
    if (sn !== 0) throw new Refused("the proof that the log only grew is too short");
    if (!same(fr, oldRoot) || !same(sr, root)) {
      throw new Refused("the log is not the one this browser saw before, grown");
    }
  };

  const memory = "stagerelease.log";
  const recall = () => {
    try { return JSON.parse(localStorage.getItem(memory)); } catch { return null; }
  };

  const check = {
    async leaf(bundle, state) {
      state.proof = readProof(bundle.proof);
      if (bundle.idx !== state.wanted || state.proof.idx !== state.wanted) {
        throw new Refused("the bundle is of another entry");
      }
      const given = fromBase64(bundle.leaf_hash);
      if (bundle.body === null) {
        state.leaf = given;
        return ["none", `Taken as given, since the text is private: ${hex(given).slice(0, 16)}…`];
      }
      const body = fromBase64(bundle.body);
      state.leaf = await leafHash(body);
      if (!same(state.leaf, given)) throw new Refused("the text has another hash than the one given");
      const shown = document.getElementById("canonical");
      if (shown && !same(utf8.encode(shown.textContent), body)) {
        throw new Refused("the text on this page is not the one in the log");
      }
      return ["ok", `It is ${hex(state.leaf).slice(0, 16)}…, of the very text on this page`];
    },
    async path(bundle, state) {
      state.note = readNote(state.proof.note);
      const { size, root } = state.note;
      await checkInclusion(state.leaf, state.wanted, size, state.proof.hashes, root);
      return ["ok", `${state.proof.hashes.length} hashes lead to ${hex(root).slice(0, 16)}…`];
    },
    async signature(bundle, state) {
      const key = await readKey(bundle.vkey);
      state.key = key;
      if (state.note.origin !== key.name) throw new Refused("the checkpoint is of another log");
      const own = state.note.signatures.filter((s) => s.name === key.name && same(s.id, key.id));
      if (!own.length) throw new Refused("the log has not signed this checkpoint");
      const verifier = await crypto.subtle.importKey("raw", key.bytes, "Ed25519", false, ["verify"]);
      for (const one of own) {
        const good = await crypto.subtle.verify("Ed25519", verifier, one.signature, utf8.encode(state.note.text));
        if (!good) throw new Refused("the signature does not hold");
      }
      state.others = state.note.signatures.length - own.length;
      return ["ok", `Signed by ${key.name}, key ${hex(key.id)}`];
    },
    async witness(bundle, state) {
      return ["none", state.others
        ? `${state.others} on it; this page does not know their keys, so it has not checked them`
        : "None: nobody else watches this log yet"];
    },
    async seen(bundle, state) {
      const { size, root, origin } = state.note;
      const before = recall();
      let said = "This browser had not seen this log before; it remembers it from now on";
      let newest = { origin, size, root: toBase64(root), vkey: bundle.vkey };
      if (before && before.origin === origin) {
        if (before.vkey !== bundle.vkey) throw new Refused("the log's key is not the one this browser knows");
        const [small, large] = before.size <= size ? [before, newest] : [newest, before];
        const answer = small.size === large.size ? { proof: [] } : await (await fetch(
          `/api/v1/log/consistency?old=${small.size}&new=${large.size}`)).json();
        await checkConsistency(small.size, fromBase64(small.root), large.size,
          fromBase64(large.root), (answer.proof || []).map(fromBase64));
        said = `It continues the ${before.size.toLocaleString("en")} entries that this browser saw last`;
        newest = large;
      }
      try { localStorage.setItem(memory, JSON.stringify(newest)); } catch { said += " (it may not remember)"; }
      return ["ok", said];
    },
  };

  for (const root of document.querySelectorAll("[data-verify]")) {
    const button = root.querySelector("button");
    const verdict = root.querySelector(".verdict");
    if (!window.crypto || !crypto.subtle) {
      button.hidden = true;
      verdict.textContent = "This browser gives no cryptography to pages that are not on https or localhost. Use the commands below.";
      continue;
    }
    const keep = (bundle) => {
      const link = document.createElement("a");
      const whole = JSON.stringify({ ...bundle, remembered: recall() }, null, 2);
      link.href = URL.createObjectURL(new Blob([whole], { type: "application/json" }));
      link.download = `log-${root.dataset.idx}-refused.json`;
      link.textContent = "Download what was checked";
      return link;
    };
    button.addEventListener("click", async () => {
      button.disabled = true;
      root.querySelectorAll("[data-lit]").forEach((li) => delete li.dataset.lit);
      verdict.textContent = "Checking…";
      let bundle = {};
      let at = null;
      try {
        const answer = await fetch(root.dataset.verify);
        bundle = await answer.json();
        if (!answer.ok) throw new Refused(bundle.detail || "the server did not give the proof");
        const state = { wanted: Number(root.dataset.idx) };
        for (const li of root.querySelectorAll("[data-step]")) {
          at = li;
          const [lit, said] = await check[li.dataset.step](bundle, state);
          li.dataset.lit = lit;
          li.querySelector(".said").textContent = said;
        }
        verdict.textContent = `Verified: this is entry ${root.dataset.idx} of the log that ${state.key.name} signed.`;
      } catch (error) {
        const why = error instanceof Refused ? error.message : `this browser could not do it (${error.message})`;
        if (at) { at.dataset.lit = "stop"; at.querySelector(".said").textContent = `It does not hold: ${why}.`; }
        verdict.replaceChildren(`Not verified: ${why}. Keep the bundle, and ask somebody who has an older checkpoint. `, keep(bundle));
      }
      button.disabled = false;
    });
  }
})();
