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
})();
