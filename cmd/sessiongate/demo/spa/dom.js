// Building and finding elements. Text only ever becomes text.

export const $ = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

// json shows a value in colour, line by line.
export function json(value, indent = "") {
  if (Array.isArray(value) || (value && typeof value === "object")) {
    const [open, close] = Array.isArray(value) ? "[]" : "{}";
    const entries = Object.entries(value);
    const inner = indent + "  ";
    const lines = entries.flatMap(([key, v], i) => [
      "\n" + inner,
      ...(Array.isArray(value) ? [] : [el("span", { class: "key" }, JSON.stringify(key)), ": "]),
      json(v, inner),
      i < entries.length - 1 ? "," : "\n" + indent,
    ]);
    return el("span", {}, open, ...lines, close);
  }
  return el("span", { class: typeof value }, JSON.stringify(value));
}

export const clock = (date) => date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

// span says a number of seconds as a person reads it off a clock.
export function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, "0");
  return s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`;
}
