import { useCallback, useEffect, useRef, useState } from "react";
import { bff } from "/bff/client.js";
import { answer, said } from "./answer.js";
import { device } from "./device.js";
import { Title } from "./route.jsx";

const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

// Devices lists the sessions of the user, each of which is a browser, and ends them.
export function Devices() {
  const [sessions, setSessions] = useState();
  const [problem, setProblem] = useState();
  const [done, setDone] = useState();
  const [question, setQuestion] = useState(); // what is to be confirmed: {text, url, done}

  const load = useCallback(async () => {
    try {
      const listed = await answer(await bff.fetch("/bff/sessions"));
      setSessions(listed.sessions);
      setProblem();
    } catch (err) {
      setProblem(said(err));
    }
  }, []);
  useEffect(() => { load(); }, [load]);

  const end = async ({ url, done: words }) => {
    setQuestion();
    setDone();
    try {
      await answer(await bff.fetch(url, { method: "DELETE" }));
      setDone(words);
    } catch (err) {
      setProblem(said(err));
    }
    load();
  };

  const others = sessions?.filter(({ current }) => !current) ?? [];
  return (
    <>
      <div className="head">
        <div>
          <Title>My devices</Title>
          <p className="soft">Where you are logged in. Log out what you don’t recognise: it takes effect at once.</p>
        </div>
        {others.length > 0 && (
          <button
            className="danger"
            onClick={() => setQuestion({
              text: others.length === 1 ? "Log out the other device?" : `Log out the ${others.length} other devices?`,
              url: "/bff/sessions",
              done: "All other devices are logged out.",
            })}
          >
            Log out all others
          </button>
        )}
      </div>
      {problem && <p className="problem" role="alert">{problem}</p>}
      <p className="notice" role="status">{done}</p>
      {!sessions && !problem && <p className="soft">Loading…</p>}
      <ul className="devices">
        {sessions?.map((session) => (
          <Device
            key={session.id}
            session={session}
            onEnd={(name) => setQuestion({
              text: `Log out ${name}?`,
              url: `/bff/sessions/${encodeURIComponent(session.id)}`,
              done: `${name} is logged out.`,
            })}
          />
        ))}
      </ul>
      {question && <Confirm question={question} onYes={() => end(question)} onNo={() => setQuestion()} />}
    </>
  );
}

function Device({ session, onEnd }) {
  const { browser, system, handheld } = device(session.user_agent);
  const name = `${browser} on ${system}`;
  return (
    <li className="card device">
      <span className={handheld ? "screen handheld" : "screen"} aria-hidden="true" />
      <div>
        <h2>{name} {session.current && <span className="here">this device</span>}</h2>
        <dl>
          <div><dt>Last seen</dt><dd>{session.current ? "now" : ago(session.last_seen_at)}</dd></div>
          <div><dt>Logged in</dt><dd><time dateTime={session.created_at}>{date.format(new Date(session.created_at))}</time></dd></div>
          <div><dt>Address</dt><dd>{session.address}</dd></div>
        </dl>
      </div>
      {!session.current && <button onClick={() => onEnd(name)} aria-label={`Log out ${name}`}>Log out</button>}
    </li>
  );
}

function Confirm({ question, onYes, onNo }) {
  const dialog = useRef();
  useEffect(() => { dialog.current.showModal(); }, []);
  return (
    <dialog ref={dialog} aria-labelledby="question" onClose={onNo}>
      <h2 id="question">{question.text}</h2>
      <p>Whoever works there has to log in again, and loses what is not saved.</p>
      <div className="buttons">
        <button onClick={() => dialog.current.close()}>Cancel</button>
        <button className="danger solid" onClick={onYes}>Log out</button>
      </div>
    </dialog>
  );
}

const units = [["day", 86_400], ["hour", 3600], ["minute", 60]];

function ago(time) {
  const seconds = (Date.now() - new Date(time)) / 1000;
  const [unit, size] = units.find(([, length]) => seconds >= length) ?? [];
  return <time dateTime={time}>{unit ? relative.format(-Math.floor(seconds / size), unit) : "just now"}</time>;
}
