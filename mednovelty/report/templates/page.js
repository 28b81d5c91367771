"use strict";
(function () {
  // What is folded away is printed, and folded away again.
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded.push(...document.querySelectorAll("details:not([open])"));
    folded.forEach(one => { one.open = true; });
  });
  window.addEventListener("afterprint", () => {
    folded.forEach(one => { one.open = false; });
    folded = [];
  });
  // Whether something goes on beyond an edge.
  for (const frame of document.querySelectorAll(".wide, .viewer-frame")) {
    const tell = () => {
      const beyond = frame.scrollWidth - frame.clientWidth;
      frame.classList.toggle("more-left", beyond > 1 && frame.scrollLeft > 1);
      frame.classList.toggle("more-right", beyond > 1 && frame.scrollLeft < beyond - 1);
    };
    frame.addEventListener("scroll", tell, { passive: true });
    const watched = new ResizeObserver(tell);
    watched.observe(frame);
    if (frame.firstElementChild) watched.observe(frame.firstElementChild);
  }
})();
