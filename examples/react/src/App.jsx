import { useEffect } from "react";
import { bff } from "/bff/client.js";
import { Countdown } from "./Countdown.jsx";
import { Devices } from "./Devices.jsx";
import { useFeed } from "./feed.js";
import { Live, LiveBadge } from "./Live.jsx";
import { Orders } from "./Orders.jsx";
import { go, Link, usePath } from "./route.jsx";
import { goodbye, useSession } from "./session.js";
import { UserMenu } from "./UserMenu.jsx";
import { Welcome } from "./Welcome.jsx";

const pages = {
  "/orders": { name: "Orders", Page: Orders },
  "/live": { name: "Live feed", Page: Live },
  "/devices": { name: "Devices", Page: Devices },
};

export function App() {
  const [session, askSession] = useSession();
  const path = usePath();
  const loggedIn = session?.authenticated === true;
  const feed = useFeed(loggedIn);

  useEffect(() => {
    if (loggedIn && !pages[path]) go("/orders", { replace: true });
  }, [loggedIn, path]);
  useEffect(() => {
    document.title = (loggedIn && pages[path] ? `${pages[path].name} · ` : "") + "Quayside";
  }, [loggedIn, path]);

  if (!session) return <p className="splash" role="status">One moment…</p>;
  if (session.unreachable) {
    return (
      <div className="splash" role="alert">
        <p>The server does not answer. You are not logged out.</p>
        <button onClick={askSession}>Try again</button>
      </div>
    );
  }
  if (!loggedIn) return <Welcome reason={path === goodbye ? "logout" : session.reason} feed={feed} path={path} />;

  const { Page } = pages[path] ?? pages["/orders"];
  const logOut = () => bff.logout({ returnUrl: goodbye });
  return (
    // Another user's page is another page: nothing of the former's is left in it.
    <div className="app" key={session.user.sub}>
      <a className="skip" href="#main">Skip to content</a>
      <header className="top">
        <Link to="/orders" className="brand">
          <img src="/icon.svg" alt="" width="28" height="28" />
          <span>Quayside</span>
        </Link>
        <nav aria-label="Pages">
          {Object.entries(pages).map(([to, { name }]) => (
            <Link key={to} to={to} current={path === to}>{name}</Link>
          ))}
        </nav>
        <LiveBadge feed={feed} />
        <UserMenu user={session.user} onLogOut={logOut} />
      </header>
      <main id="main" key={path}>
        <Page feed={feed} session={session} />
      </main>
      <Countdown session={session} askSession={askSession} onLogOut={logOut} />
    </div>
  );
}
