// Makes or shows a passkey (WebAuthn). Without this file the other ways to sign in are there.
(() => {
  "use strict";
  const bytes = (text) => {
    const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    return Uint8Array.from(plain, (c) => c.charCodeAt(0));
  };
  const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)))
    .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const listed = (list) => (list || []).map((one) => ({ ...one, id: bytes(one.id) }));

  const ask = async (options) => {
    const publicKey = { ...options, challenge: bytes(options.challenge) };
    if (!options.user) {
      publicKey.allowCredentials = listed(options.allowCredentials);
      const got = await navigator.credentials.get({ publicKey });
      return answer(got, {
        authenticatorData: text(got.response.authenticatorData),
        signature: text(got.response.signature),
        userHandle: got.response.userHandle ? text(got.response.userHandle) : null,
      });
    }
    publicKey.user = { ...options.user, id: bytes(options.user.id) };
    publicKey.excludeCredentials = listed(options.excludeCredentials);
    const made = await navigator.credentials.create({ publicKey });
    return answer(made, {
      attestationObject: text(made.response.attestationObject),
      transports: made.response.getTransports ? made.response.getTransports() : [],
    });
  };
  const answer = (credential, rest) => JSON.stringify({
    id: credential.id,
    rawId: text(credential.rawId),
    type: credential.type,
    clientExtensionResults: {},
    response: { clientDataJSON: text(credential.response.clientDataJSON), ...rest },
  });

  const send = async (address, fields) => {
    const response = await fetch(address, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams(fields),
    });
    const said = await response.json();
    if (!response.ok) throw new Error([said.detail, said.next_step].filter(Boolean).join(" "));
    return said;
  };

  const words = (error) => {
    if (error.name === "NotAllowedError") return "That was cancelled, or took too long. Try again.";
    if (error.name === "InvalidStateError") return "This device has a passkey for you already.";
    return error.message;
  };
  for (const root of document.querySelectorAll("[data-passkey]")) {
    const button = root.querySelector("button");
    const status = root.querySelector("[role=status]");
    if (!window.PublicKeyCredential) {
      button.hidden = true;
      status.textContent = "This browser has no passkeys here; they need https.";
      continue;
    }
    button.addEventListener("click", async () => {
      button.disabled = true;
      status.textContent = "Your browser asks for the passkey.";
      try {
        const begun = await send(root.dataset.options, {});
        const fields = { ceremony: begun.ceremony, credential: await ask(begun.publicKey) };
        for (const name of (root.dataset.fields || "").split(" ").filter(Boolean)) {
          fields[name] = document.querySelector(`[name="${name}"]`).value;
        }
        const said = await send(root.dataset.finish, fields);
        status.textContent = "Thank you.";
        const resume = document.getElementById("resume");
        if (said.next) location.assign(said.next);
        else if (resume.tagName === "FORM") resume.requestSubmit();
        else location.assign(resume.getAttribute("href"));
      } catch (error) {
        status.textContent = words(error);
        button.disabled = false;
      }
    });
  }
})();
