// What makes the console quicker. Every page works without: a form is sent, and a page comes back.
//
// There is one mechanism: a form is sent in the background, and parts of the page that comes back, named by their ids,
// take the place of those that are here. All that is shown is made by the server.
"use strict";

// Times, in the viewer's own zone; the title keeps UTC.
function showTimes(root) {
  const here = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  for (const time of root.querySelectorAll("time[datetime]")) {
    time.textContent = here.format(new Date(time.dateTime));
  }
}

// Buttons that were just pressed: a second press sends nothing more, while a part of the page comes, or for the three seconds in
// which another page usually does.
let underWay = new Set();
function sendOnce(button) {
  underWay.add(button);
  setTimeout(() => underWay.delete(button), 3000);
}
addEventListener("pageshow", () => (underWay = new Set()));

// Sends a form, with the button that was pressed, and gives back the page that answers.
async function sent(form, address, button) {
  const fields = new URLSearchParams(new FormData(form, button));
  const answer = await fetch(address, { method: "POST", body: fields, headers: { Accept: "text/html" } });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  return { page, fields, isRefused: !answer.ok };
}

// What was typed into a field after the form was sent is not lost with the field.
function keepTyped(here, come, fields) {
  for (const field of come.querySelectorAll("input[id], textarea[id], select[id]")) {
    const typed = here.querySelector(`#${CSS.escape(field.id)}`);
    if (!typed || typed.disabled || typed.type === "checkbox") continue;
    if (typed.value !== (fields.get(typed.name) ?? "")) field.value = typed.value;
  }
}

// Puts parts of a page in the place of those that are here, and the focus where it was or is asked for.
function swap(page, ids, fields) {
  const focused = document.activeElement?.id;
  for (const id of ids) {
    const [here, come] = [document.getElementById(id), page.getElementById(id)];
    if (!here || !come) continue;
    const wanted = come.querySelector("[autofocus]");
    wanted?.removeAttribute("autofocus");
    if (fields) keepTyped(here, come, fields);
    here.replaceWith(document.adoptNode(come));
    prepare(come);
    wanted?.focus();
  }
  const field = document.getElementById(focused);
  if (document.activeElement !== document.body || !field) return;
  field.focus();
  if (field.matches("textarea, input:not([type])")) field.setSelectionRange(field.value.length, field.value.length);
}

// Shows what a page says of the fields whose names are given; of all, where none are.
function showErrors(page, names) {
  for (const come of page.querySelectorAll("[data-errors]")) {
    const here = document.getElementById(come.id);
    // Those of no field are shown whatever was typed.
    if (!here || (names && come.dataset.errors !== "rest" && !names.has(come.dataset.errors))) continue;
    here.replaceChildren(...document.adoptNode(come).childNodes);
  }
  markInvalid(document);
}

// A field with an error beside it is told to be invalid.
function markInvalid(root) {
  for (const error of root.querySelectorAll("[data-errors]")) {
    const fields = document.querySelectorAll(`[aria-describedby~="${CSS.escape(error.id)}"]`);
    for (const field of fields) {
      if (error.childElementCount) field.setAttribute("aria-invalid", "true");
      else field.removeAttribute("aria-invalid");
    }
  }
}

// Headers that are kept are read first, and edited by their icon.
function holdHeaders(root) {
  for (const row of root.querySelectorAll("[data-kept]")) {
    const fields = row.querySelectorAll("input");
    if (row.querySelector(".error")?.childElementCount) continue;
    for (const field of fields) field.readOnly = true;
    row.querySelector("[data-edit]").addEventListener("click", () => {
      for (const field of fields) field.readOnly = false;
      fields[1].focus();
    });
  }
}

function prepare(root) {
  showTimes(root);
  holdHeaders(root);
  markInvalid(root);
}

// Says why something was refused, above the page: what is in its fields stays.
function complain(page) {
  const main = document.getElementById("main");
  const notice = document.getElementById("refusal") ?? document.createElement("div");
  notice.id = "refusal";
  notice.className = "card warning";
  notice.setAttribute("role", "alert");
  notice.replaceChildren(...(page.getElementById("problem") ?? page.getElementById("main")).childNodes);
  main.prepend(notice);
}

// A part that is being fetched says so; of the answers for one form the last one asked for counts.
const asked = new WeakMap();
async function refresh(form, address, button, ids, onPage) {
  if (button) underWay.add(button);
  const turn = (asked.get(form) ?? 0) + 1;
  asked.set(form, turn);
  const parts = ids.map((id) => document.getElementById(id)).filter(Boolean);
  for (const part of parts) part.setAttribute("aria-busy", "true");
  const answer = await sent(form, address, button).catch(() => null);
  for (const part of parts) part.removeAttribute("aria-busy");
  if (button) underWay.delete(button);
  if (!answer) {
    // None came. A button sends the form as it does without a script, and the browser says what is wrong.
    if (button) {
      delete button.dataset.swap;
      form.requestSubmit(button);
    }
    return;
  }
  if (answer.isRefused) return complain(answer.page);
  document.getElementById("refusal")?.remove();
  if (asked.get(form) !== turn) return;
  swap(answer.page, ids, answer.fields);
  onPage?.(answer.page);
}

// Buttons and fields that change a part of the page.
document.addEventListener("submit", (event) => {
  const button = event.submitter;
  if (underWay.has(button ?? event.target)) return event.preventDefault();
  if (!button?.dataset.swap) return event.target.method === "post" && sendOnce(button ?? event.target);
  event.preventDefault();
  const address = button.hasAttribute("formaction") ? button.formAction : event.target.action;
  refresh(event.target, address, button, button.dataset.swap.split(" "), (page) => showErrors(page));
});
document.addEventListener("change", (event) => {
  const { form, dataset } = event.target;
  if (dataset.swap && form?.dataset.check) refresh(form, form.dataset.check, null, dataset.swap.split(" "));
});

// Links that change a part of the page; the address follows.
document.addEventListener("click", async (event) => {
  const link = event.target.closest("a[data-swap]");
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  const answer = await fetch(link.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer?.ok || answer.redirected) return location.assign(link.href);
  swap(new DOMParser().parseFromString(await answer.text(), "text/html"), link.dataset.swap.split(" "));
  history.replaceState(null, "", link.href);
});

// What is typed is checked after a short rest.
let resting;
const touched = new Set();
document.addEventListener("input", (event) => {
  const { form, name, dataset } = event.target;
  if (!form?.dataset.check || dataset.swap) return;
  touched.add(event.target.getAttribute("aria-describedby")?.split(" ").map((id) => id.replace(/-error$/, "")).pop() ?? name);
  clearTimeout(resting);
  resting = setTimeout(() => {
    refresh(form, form.dataset.check, null, ["preview"], (page) => showErrors(page, touched));
  }, 300);
});

// Makes what is here like what has come, and touches nothing that is the same: the focus, what is selected and what is
// unfolded stay, and a screen reader is told of nothing that has not changed.
function renew(here, come) {
  let place = here.firstChild;
  for (const next of [...come.childNodes]) {
    const moved = next.id && [...here.children].find((child) => child.id === next.id);
    if (moved && moved !== place) {
      here.insertBefore(moved, place);
      place = moved;
    }
    const isSame = place && place.nodeName === next.nodeName && place.id === next.id;
    if (!isSame) {
      here.insertBefore(document.adoptNode(next), place);
      continue;
    }
    if (!place.isEqualNode(next)) renewOne(place, next);
    place = place.nextSibling;
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}
function renewOne(here, come) {
  if (here.nodeType !== Node.ELEMENT_NODE) {
    here.nodeValue = come.nodeValue;
    return;
  }
  for (const { name, value } of come.attributes) if (here.getAttribute(name) !== value) here.setAttribute(name, value);
  for (const { name } of [...here.attributes]) if (!come.hasAttribute(name) && name !== "open") here.removeAttribute(name);
  renew(here, come);
}

// A part that the server keeps up to date, by sending it anew. While no news come it says so. A page that nobody sees asks for
// none: a browser has few connections to one server.
for (const part of document.querySelectorAll("[data-live]")) {
  let news, late;
  const isOld = () => part.setAttribute("data-stale", "");
  // Where something comes each second, also when nothing has changed, silence is a worker that hangs.
  const silence = Number(part.dataset.silence ?? 0) * 1000;
  const wait = () => {
    clearTimeout(late);
    if (silence) late = setTimeout(isOld, silence);
  };
  const follow = () => {
    news?.close();
    clearTimeout(late);
    if (document.hidden) return;
    wait();
    news = new EventSource(part.dataset.live);
    news.addEventListener("message", ({ data }) => {
      const { body } = new DOMParser().parseFromString(data, "text/html");
      showTimes(body);
      renew(part, body);
      part.removeAttribute("data-stale");
      wait();
    });
    news.addEventListener("error", isOld);
  };
  document.addEventListener("visibilitychange", follow);
  follow();
}

// A box that ticks all boxes of a name in its form.
for (const all of document.querySelectorAll("[data-all]")) {
  const boxes = () => [...all.form.elements].filter((box) => box.type === "checkbox" && box.name === all.dataset.all);
  all.closest("[hidden]")?.removeAttribute("hidden");
  all.addEventListener("change", () => boxes().forEach((box) => (box.checked = all.checked)));
  all.form.addEventListener("change", () => {
    const ticked = boxes().filter((box) => box.checked).length;
    all.checked = ticked > 0 && ticked === boxes().length;
    all.indeterminate = ticked > 0 && !all.checked;
  });
}

prepare(document);

// What was not saved for its faults begins at the first of them.
if (document.querySelector("[data-refused]")) document.querySelector("[aria-invalid]")?.focus();
