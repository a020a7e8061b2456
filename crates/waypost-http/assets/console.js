// Progressive enhancement of the console. Every page also works without this script, by plain forms and links.
//
// There is one mechanism: a form is sent in the background, and elements of the response page replace the elements of this
// page with the same ids. All content is rendered by the server.
"use strict";

// Shows times in the viewer's time zone. The title keeps UTC.
function showTimes(root) {
  const localFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  for (const time of root.querySelectorAll("time[datetime]")) {
    time.textContent = localFormat.format(new Date(time.dateTime));
  }
}

// Buttons that were just pressed. They ignore further presses until the response has arrived, or for three seconds if a new
// page loads.
let pendingButtons = new Set();
function sendOnce(button) {
  pendingButtons.add(button);
  setTimeout(() => pendingButtons.delete(button), 3000);
}
addEventListener("pageshow", () => (pendingButtons = new Set()));

// Sends a form with the pressed button and returns the response page.
async function sendForm(form, address, button) {
  const fields = new URLSearchParams(new FormData(form, button));
  const response = await fetch(address, { method: "POST", body: fields, headers: { Accept: "text/html" } });
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  return { page, fields, isError: !response.ok };
}

// Keeps what was typed into a field after the form was sent.
function keepTyped(current, incoming, fields) {
  for (const field of incoming.querySelectorAll("input[id], textarea[id], select[id]")) {
    const typed = current.querySelector(`#${CSS.escape(field.id)}`);
    if (!typed || typed.disabled || typed.type === "checkbox") continue;
    if (typed.value !== (fields.get(typed.name) ?? "")) field.value = typed.value;
  }
}

// Replaces elements by those of another page. Restores the focus, or sets it to an element with `autofocus`.
function swap(page, ids, fields) {
  const focused = document.activeElement?.id;
  for (const id of ids) {
    const [current, incoming] = [document.getElementById(id), page.getElementById(id)];
    if (!current || !incoming) continue;
    const autofocused = incoming.querySelector("[autofocus]");
    autofocused?.removeAttribute("autofocus");
    if (fields) keepTyped(current, incoming, fields);
    current.replaceWith(document.adoptNode(incoming));
    prepare(incoming);
    autofocused?.focus();
  }
  const field = document.getElementById(focused);
  if (document.activeElement !== document.body || !field) return;
  field.focus();
  if (field.matches("textarea, input:not([type])")) field.setSelectionRange(field.value.length, field.value.length);
}

// Shows the errors of a page beside the fields. If `names` is given, only for these fields.
function showErrors(page, names) {
  for (const incoming of page.querySelectorAll("[data-errors]")) {
    const current = document.getElementById(incoming.id);
    // Errors that belong to no field are always shown.
    if (!current || (names && incoming.dataset.errors !== "rest" && !names.has(incoming.dataset.errors))) continue;
    current.replaceChildren(...document.adoptNode(incoming).childNodes);
  }
  markInvalid(document);
}

// Marks fields with an error as invalid for screen readers.
function markInvalid(root) {
  for (const error of root.querySelectorAll("[data-errors]")) {
    const fields = document.querySelectorAll(`[aria-describedby~="${CSS.escape(error.id)}"]`);
    for (const field of fields) {
      if (error.childElementCount) field.setAttribute("aria-invalid", "true");
      else field.removeAttribute("aria-invalid");
    }
  }
}

// Stored headers are read-only until their edit icon is clicked.
function lockStoredHeaders(root) {
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
  lockStoredHeaders(root);
  markInvalid(root);
}

// Shows an error page above the current page, whose fields keep their content.
function showProblem(page) {
  const main = document.getElementById("main");
  const notice = document.getElementById("refusal") ?? document.createElement("div");
  notice.id = "refusal";
  notice.className = "card warning";
  notice.setAttribute("role", "alert");
  notice.replaceChildren(...(page.getElementById("problem") ?? page.getElementById("main")).childNodes);
  main.prepend(notice);
}

// Replaces elements by the response to a form. An element is replaced only by the response to the latest request for it, because
// a choice and a check of the same form can be under way together.
const latestRequests = new Map();
let requestCount = 0;
async function refresh(form, address, button, ids, onPage) {
  if (button) pendingButtons.add(button);
  requestCount += 1;
  const request = requestCount;
  for (const id of ids) latestRequests.set(id, request);
  const parts = ids.map((id) => document.getElementById(id)).filter(Boolean);
  for (const part of parts) part.setAttribute("aria-busy", "true");
  const response = await sendForm(form, address, button).catch(() => null);
  for (const part of parts) part.removeAttribute("aria-busy");
  if (button) pendingButtons.delete(button);
  if (!response) {
    // No response. Submit the form as without a script, so that the browser shows the error.
    if (button) {
      delete button.dataset.swap;
      form.requestSubmit(button);
    }
    return;
  }
  if (response.isError) return showProblem(response.page);
  document.getElementById("refusal")?.remove();
  const current = ids.filter((id) => latestRequests.get(id) === request);
  if (!current.length) return;
  swap(response.page, current, response.fields);
  onPage?.(response.page);
}

// Buttons and fields that update a part of the page.
document.addEventListener("submit", (event) => {
  const button = event.submitter;
  if (pendingButtons.has(button ?? event.target)) return event.preventDefault();
  if (!button?.dataset.swap) return event.target.method === "post" && sendOnce(button ?? event.target);
  event.preventDefault();
  const address = button.hasAttribute("formaction") ? button.formAction : event.target.action;
  refresh(event.target, address, button, button.dataset.swap.split(" "), (page) => showErrors(page));
});
document.addEventListener("change", (event) => {
  const { form, dataset } = event.target;
  if (dataset.swap && form?.dataset.check) refresh(form, form.dataset.check, null, dataset.swap.split(" "));
});

// Links that update a part of the page and the URL.
document.addEventListener("click", async (event) => {
  const link = event.target.closest("a[data-swap]");
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  const response = await fetch(link.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!response?.ok || response.redirected) return location.assign(link.href);
  swap(new DOMParser().parseFromString(await response.text(), "text/html"), link.dataset.swap.split(" "));
  history.replaceState(null, "", link.href);
});

// Validates input 300 ms after the last keystroke.
let checkTimer;
const touched = new Set();
document.addEventListener("input", (event) => {
  const { form, name, dataset } = event.target;
  if (!form?.dataset.check || dataset.swap) return;
  touched.add(event.target.getAttribute("aria-describedby")?.split(" ").map((id) => id.replace(/-error$/, "")).pop() ?? name);
  clearTimeout(checkTimer);
  checkTimer = setTimeout(() => {
    refresh(form, form.dataset.check, null, ["preview"], (page) => showErrors(page, touched));
  }, 300);
});

// Makes the children of `current` equal to those of `incoming`, and changes only what differs. So focus, selection and open
// details stay, and screen readers announce only changes.
function morphChildren(current, incoming) {
  let place = current.firstChild;
  for (const next of [...incoming.childNodes]) {
    const match = next.id && [...current.children].find((child) => child.id === next.id);
    if (match && match !== place) {
      current.insertBefore(match, place);
      place = match;
    }
    const isSame = place && place.nodeName === next.nodeName && place.id === next.id;
    if (!isSame) {
      current.insertBefore(document.adoptNode(next), place);
      continue;
    }
    if (!place.isEqualNode(next)) morphNode(place, next);
    place = place.nextSibling;
  }
  while (place) {
    const removed = place;
    place = place.nextSibling;
    removed.remove();
  }
}
function morphNode(current, incoming) {
  if (current.nodeType !== Node.ELEMENT_NODE) {
    current.nodeValue = incoming.nodeValue;
    return;
  }
  for (const { name, value } of incoming.attributes) if (current.getAttribute(name) !== value) current.setAttribute(name, value);
  for (const { name } of [...current.attributes]) if (!incoming.hasAttribute(name) && name !== "open") current.removeAttribute(name);
  morphChildren(current, incoming);
}

// Elements that the server updates by server-sent events. Without updates they are marked as stale. Hidden pages close their
// stream, because browsers limit the connections to a server.
for (const part of document.querySelectorAll("[data-live]")) {
  let source, staleTimer;
  const markStale = () => part.setAttribute("data-stale", "");
  // Elements with `data-silence` get an update each second. Silence means that the worker hangs.
  const silence = Number(part.dataset.silence ?? 0) * 1000;
  const restartTimer = () => {
    clearTimeout(staleTimer);
    if (silence) staleTimer = setTimeout(markStale, silence);
  };
  const follow = () => {
    source?.close();
    clearTimeout(staleTimer);
    if (document.hidden) return;
    restartTimer();
    source = new EventSource(part.dataset.live);
    source.addEventListener("message", ({ data }) => {
      const { body } = new DOMParser().parseFromString(data, "text/html");
      showTimes(body);
      morphChildren(part, body);
      part.removeAttribute("data-stale");
      restartTimer();
    });
    source.addEventListener("error", markStale);
  };
  document.addEventListener("visibilitychange", follow);
  follow();
}

// A checkbox that ticks all checkboxes with a certain name in its form.
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

// If a form was not saved because of errors, focus the first invalid field.
if (document.querySelector("[data-refused]")) document.querySelector("[aria-invalid]")?.focus();
