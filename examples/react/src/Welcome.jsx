import { useEffect, useRef } from "react";
import { bff } from "/bff/client.js";
import { Status } from "./Orders.jsx";
import { goodbye, inWords } from "./session.js";

const examples = [
  ["Q-1049", "Brass compass", "new"],
  ["Q-1048", "Oilskin jacket", "packed"],
  ["Q-1047", "Sea chart, Biscay", "shipped"],
  ["Q-1046", "Tide clock", "delivered"],
];

// Welcome is what somebody sees who is not logged in: the landing page or, after a session, why it is over.
export function Welcome({ reason, feed, path }) {
  const heading = useRef();
  const words = inWords(reason);
  // The page that was here is gone, and so is its focus.
  useEffect(() => {
    if (words) heading.current.focus();
  }, [words]);

  const logIn = () => bff.login({ returnUrl: ["/", goodbye].includes(path) ? "/orders" : path + location.search + location.hash });
  return (
    <div className="welcome">
      <p className="brand">
        <img src="/icon.svg" alt="" width="32" height="32" />
        <span>Quayside</span>
      </p>
      {words ? (
        <main className="card ended">
          <h1 ref={heading} tabIndex={-1}>You are logged out</h1>
          <p role="status">{words}</p>
          <button className="primary big" onClick={logIn}>Log in again</button>
          <p className="fine">
            Reason: <code>{reason}</code>
            {feed.code && <> · live feed closed with <code>{feed.code} {feed.reason}</code></>}
          </p>
        </main>
      ) : (
        <main className="hero">
          <div className="pitch">
            <div>
              <h1>Every order, from quay to door.</h1>
              <p className="lead">
                A sample app to start from: React and Vite behind a session gateway. It logs in, shows an API’s data and a live
                feed, and has never seen a token.
              </p>
              <button className="primary big" onClick={logIn}>Log in</button>
            </div>
            <figure className="card preview" aria-hidden="true">
              {examples.map(([id, item, status]) => (
                <p key={id}><b>{id}</b><span className="soft">{item}</span><Status of={{ status }} /></p>
              ))}
            </figure>
          </div>
          <ul className="points">
            <li><strong>No token in the browser</strong><span>One cookie that no script can read. The gateway keeps the rest.</span></li>
            <li><strong>Over everywhere, at once</strong><span>Log out in one tab and every tab, device and stream knows.</span></li>
            <li><strong>No surprises</strong><span>A minute’s notice before a session ends, and the reason when it has.</span></li>
          </ul>
        </main>
      )}
    </div>
  );
}
