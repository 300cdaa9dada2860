"use strict";
(() => {
  const every = 10000;
  const stale = document.getElementById("stale");
  let title = document.title;
  let last = new Date();
  let isAsking = false;
  // The text does not change while its reason lasts, so that a screen reader reads it once.
  function show(mark, reason) {
    document.title = mark ? mark + ": " + title : title;
    const at = last.toISOString().slice(0, 19).replace("T", " ") + " UTC";
    const text = mark ? "Not fresh since " + at + ": " + reason : "";
    if (stale.textContent !== text) stale.textContent = text;
  }
  function replace(fresh) {
    const main = document.querySelector("main");
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
  }
  const isSelected = () => !getSelection().isCollapsed;
  async function refresh() {
    if (document.hidden || isAsking) return;
    if (isSelected()) return show("PAUSED", "the page waits while text is selected.");
    isAsking = true;
    try {
      const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(8000) });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = fresh.querySelector("main");
      if (!main) throw new Error("no page");
      if (isSelected()) return show("PAUSED", "the page waits while text is selected.");
      title = fresh.title;
      replace(main);
      last = new Date();
      show("", "");
    } catch {
      show("STALE", "the daemon does not answer.");
    } finally {
      isAsking = false;
    }
  }
  setInterval(refresh, every);
  document.addEventListener("visibilitychange", refresh);
})();
