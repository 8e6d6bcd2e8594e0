"use strict";
(() => {
  const PERIOD = 5000;
  const pause = document.getElementById("pause");
  const stale = document.getElementById("stale");
  let paused = false;
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Resume updates" : "Pause updates";
    if (!paused) refresh();
  });
  async function refresh() {
    if (paused || document.hidden) return;
    try {
      const answer = await fetch("/", { headers: { Accept: "text/html" }, cache: "no-store", signal: AbortSignal.timeout(PERIOD) });
      if (!answer.ok) throw new Error(String(answer.status));
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = next.getElementById("live");
      const now = document.getElementById("live");
      if (!fresh || paused) return;
      const focused = document.activeElement;
      const places = [...now.querySelectorAll(".scroll")].map((it) => it.scrollLeft);
      const focus = [...now.querySelectorAll("[tabindex], a")].indexOf(focused);
      now.replaceWith(document.adoptNode(fresh));
      fresh.querySelectorAll(".scroll").forEach((it, at) => { it.scrollLeft = places[at] || 0; });
      if (focus >= 0) {
        const again = fresh.querySelectorAll("[tabindex], a")[focus];
        if (again) again.focus({ preventScroll: true });
      }
      document.title = next.title;
      stale.hidden = true;
    } catch {
      stale.hidden = false;
    }
  }
  setInterval(refresh, PERIOD);
  document.addEventListener("visibilitychange", refresh);
})();
