// Returns the layout width of the page, its actual width, and the elements that protrude.
// Elements in a scrollable part of the page do not count.
const root = document.documentElement;
const protrudes = (element) => {
  for (let outer = element.parentElement; outer && outer !== document.body; outer = outer.parentElement) {
    if (getComputedStyle(outer).overflowX !== "visible") return false;
  }
  return element.getBoundingClientRect().right > root.clientWidth + 1;
};
const named = (element) => {
  const classes = [...element.classList].map((name) => `.${name}`).join("");
  return `<${element.localName}${classes}> "${(element.innerText ?? "").trim().slice(0, 40)}"`;
};
return {
  laid_out: root.clientWidth,
  wide: root.scrollWidth,
  protruding: [...document.body.querySelectorAll("*")].filter(protrudes).slice(0, 5).map(named),
};
