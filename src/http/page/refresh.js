"use strict";
(() => {
  const every = 10000;
  const stale = document.getElementById("stale");
  let last = Date.now();
  async function refresh() {
    const main = document.querySelector("main");
    if (document.hidden || !getSelection().isCollapsed) return;
    try {
      const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(8000) });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
      const focused = document.activeElement && document.activeElement.id;
      for (const open of main.querySelectorAll("details[open][id]")) {
        const same = fresh.querySelector("#" + CSS.escape(open.id));
        if (same) same.open = true;
      }
      const at = [scrollX, scrollY];
      const scrolled = [...main.querySelectorAll(".scroll[id]")].map((box) => [box.id, box.scrollLeft]);
      main.replaceWith(fresh);
      for (const [id, left] of scrolled) {
        const box = document.getElementById(id);
        if (box) box.scrollLeft = left;
      }
      const again = focused && document.getElementById(focused);
      if (again) again.focus({ preventScroll: true });
      scrollTo(...at);
      last = Date.now();
      stale.textContent = "";
    } catch {
      const secs = Math.round((Date.now() - last) / 1000);
      stale.textContent = "Not refreshed for " + secs + " s: the daemon does not answer.";
    }
  }
  setInterval(refresh, every);
})();
