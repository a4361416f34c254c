import { useEffect, useState } from "react";
import { retry } from "./feed.js";
import { Status } from "./Orders.jsx";
import { Link, Title } from "./route.jsx";
import { inWords } from "./session.js";

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

const names = {
  closed: "Closed",
  connecting: "Connecting",
  open: "Live",
  waiting: "Reconnecting",
  ended: "Session ended",
};

// LiveBadge shows on every page whether the feed is connected.
export function LiveBadge({ feed }) {
  return (
    <Link to="/live" className={`badge ${feed.status}`} aria-label={`Live feed: ${names[feed.status]}`}>
      <span className="dot" aria-hidden="true" />
      <span>{names[feed.status]}</span>
    </Link>
  );
}

export function Live({ feed }) {
  return (
    <>
      <div className="head">
        <div>
          <Title>Live feed</Title>
          <p className="soft">A WebSocket through the gateway. It ends with the session, within a second.</p>
        </div>
      </div>
      <div className="card connection">
        <p role="status" className={`badge ${feed.status}`}>
          <span className="dot" aria-hidden="true" />
          <span>{names[feed.status]}</span>
        </p>
        <p className="soft"><Detail feed={feed} /></p>
        {feed.status === "waiting" && feed.retryAt && <button onClick={retry}>Now</button>}
      </div>
      <ol className="card flush feed" aria-label="What happened, newest first">
        {feed.messages.map(({ seq, at, text, order }) => (
          <li key={seq}>
            <time dateTime={at}>{clock.format(new Date(at))}</time>
            <span className="what">{text}</span>
            <Status of={order} />
          </li>
        ))}
        {feed.messages.length === 0 && <li className="soft">Nothing yet.</li>}
      </ol>
    </>
  );
}

function Detail({ feed }) {
  if (feed.status === "open") return `${feed.messages.length} messages so far.`;
  if (feed.status === "waiting" && feed.retryAt) return <>The connection is lost. Next attempt in <Seconds until={feed.retryAt} />.</>;
  if (feed.status === "ended") return `${inWords(feed.reason) ?? "Your session is over."} (${feed.code ?? "no code"}, ${feed.reason})`;
  return "One moment.";
}

function Seconds({ until }) {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, []);
  return `${Math.max(0, Math.ceil((until - now) / 1000))} s`;
}
