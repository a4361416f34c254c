// Routes by hand: four pages need no library.
import { useEffect, useRef, useState } from "react";

const changed = new EventTarget();
let followed = false; // a link within the app, as opposed to a page load

export function go(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](undefined, "", path);
  followed ||= !replace;
  if (!replace) scrollTo(0, 0);
  changed.dispatchEvent(new Event("go"));
}

export function usePath() {
  const [path, setPath] = useState(location.pathname);
  useEffect(() => {
    const read = () => setPath(location.pathname);
    changed.addEventListener("go", read);
    addEventListener("popstate", read);
    return () => {
      changed.removeEventListener("go", read);
      removeEventListener("popstate", read);
    };
  }, []);
  return path;
}

// Link is a link within the app. With a modifier key it stays the browser's own.
export function Link({ to, current, children, ...rest }) {
  const follow = (event) => {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    if (to !== location.pathname) go(to);
  };
  return (
    <a href={to} aria-current={current ? "page" : undefined} onClick={follow} {...rest}>
      {children}
    </a>
  );
}

// Title is a page's heading. It takes the focus after a link was followed, as a new document would.
export function Title({ children }) {
  const heading = useRef();
  useEffect(() => {
    if (followed) heading.current.focus({ preventScroll: true });
  }, []);
  return <h1 ref={heading} tabIndex={-1}>{children}</h1>;
}
