/* What a page needs once its text is there: wide things fit or can be scrolled by keyboard,
   and the printed page shows what a click would open. */
(function () {
  "use strict";
  const EQUATIONS = '.bd-article mjx-container[display="true"]';
  const WIDE = [
    [".bd-article .pst-scrollable-table-container", "table"],
    [".bd-article div.cell_output .output", "output"],
    [".bd-article pre", "code or output"],
    [".bd-article div.math, .bd-article mjx-container", "formula"],
    [".bd-article details", "solution"],
  ];
  const SMALLEST = 0.75; // of an equation's size, before it scrolls
  const PAPER = 640; // pixels of a column of A4, less a margin for safety
  const PRINTED = 14; // pixels of the printed text
  const OPEN = ".bd-article details:not(.hide), .bd-article .tag_solution details";

  function fit() {
    document.querySelectorAll(EQUATIONS).forEach((e) => {
      e.dataset.size = e.dataset.size || e.style.fontSize || "100%"; // MathJax's own
      e.style.fontSize = e.dataset.size;
      if (!e.clientWidth) return; // folded away
      const full = parseFloat(e.dataset.size), wide = e.scrollWidth;
      const drawn = e.querySelector("mjx-math").getBoundingClientRect().width;
      const text = parseFloat(getComputedStyle(e.parentElement).fontSize);
      const paper = Math.min(1, (PAPER * text) / (drawn * PRINTED));
      e.style.setProperty("--on-paper", (full * paper).toFixed(1) + "%");
      if (wide > e.clientWidth)
        e.style.fontSize = full * Math.max(SMALLEST, (e.clientWidth - 8) / wide) + "%";
    });
    WIDE.forEach(([selector, name]) => {
      document.querySelectorAll(selector).forEach((e) => {
        const style = getComputedStyle(e);
        const scrolls = e.clientWidth && e.scrollWidth > e.clientWidth
          && /auto|scroll/.test(style.overflowX);
        if (scrolls) {
          e.tabIndex = 0;
          if (e.tagName !== "MJX-CONTAINER" && e.tagName !== "DETAILS") {
            e.setAttribute("role", "group");
            e.setAttribute("aria-label", name + ", scrolls sideways");
          }
        } else if (e.tabIndex === 0) {
          ["tabindex", "role", "aria-label"].forEach((a) => {
            if (a === "tabindex" || e.tagName !== "MJX-CONTAINER") e.removeAttribute(a);
          });
        }
      });
    });
  }

  let waiting = 0;
  function soon() {
    clearTimeout(waiting);
    waiting = setTimeout(fit, 60);
  }

  function ready() {
    fit();
    document.querySelectorAll(".bd-article details").forEach((e) =>
      e.addEventListener("toggle", soon));
    window.addEventListener("resize", soon);
    const maths = document.getElementById("MathJax-script")
      || document.querySelector('script[src*="mathjax"]');
    const grown = new ResizeObserver(soon); // a formula's letters may come later than it
    const set = () => window.MathJax.startup.promise.then(() => {
      fit();
      document.querySelectorAll(EQUATIONS + " mjx-math").forEach((e) => grown.observe(e));
    });
    if (!maths) return;
    if (window.MathJax && window.MathJax.startup && window.MathJax.startup.promise) set();
    else maths.addEventListener("load", set);
  }

  const opened = [];
  let theme;
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll(OPEN).forEach((e) => {
      if (!e.open) opened.push(e);
      e.open = true;
    });
    theme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    fit();
  });
  window.addEventListener("afterprint", () => {
    opened.splice(0).forEach((e) => (e.open = false));
    document.documentElement.dataset.theme = theme;
    fit();
  });

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", ready);
  else ready();
})();
