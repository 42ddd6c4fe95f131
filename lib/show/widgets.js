(function () {
  // One slider; each value of it is a frame. `moves` say which attribute of which part
  // takes which value in each frame; a list shorter than the frames keeps its last value.
  var D = __DATA__;
  function text(m, i) {
    var v = m.v[Math.min(i, m.v.length - 1)];
    if (m.x) return m.x.map(function (x, j) { return x + "," + v[j]; }).join(" ");
    return (m.p || "") + v * (m.f || 1) + (m.s || "");
  }
  function wake(root) {
    if (root.dataset.awake) return;
    root.dataset.awake = 1;
    var input = root.querySelector("input"), value = root.querySelector(".w-value");
    var out = root.querySelector("output"), button = root.querySelector("button");
    var parts = {}, timer = 0;
    root.querySelectorAll("[data-m]").forEach(function (e) {
      parts[e.getAttribute("data-m")] = e;
    });
    function show() {
      var i = +input.value;
      D.moves.forEach(function (m) { parts[m.k].setAttribute(m.a, text(m, i)); });
      value.textContent = D.values[i];
      input.setAttribute("aria-valuetext", D.values[i]);
      if (D.readout) out.textContent = D.readout[i];
    }
    function stop() {
      clearInterval(timer);
      timer = 0;
      if (button) button.textContent = "▶ Play";
    }
    function play() {
      if (+input.value >= +input.max) input.value = 0;
      button.textContent = "⏸ Pause";
      timer = setInterval(function () {
        input.value = +input.value + 1;
        show();
        if (+input.value >= +input.max || !root.isConnected) stop();
      }, 1000 / D.fps);
    }
    input.addEventListener("input", function () { stop(); show(); });
    root.addEventListener("keydown", function (e) { e.stopPropagation(); });
    show();
    if (!button) return;
    button.addEventListener("click", function () { if (timer) stop(); else play(); });
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    var seen = new IntersectionObserver(function (entries) {
      if (!entries[0].isIntersecting) return;
      seen.disconnect();
      if (!timer && +input.value === 0) play();
    }, { threshold: 0.6 });
    seen.observe(root);
  }
  document.querySelectorAll('[id="__UID__"]').forEach(wake);
})();
