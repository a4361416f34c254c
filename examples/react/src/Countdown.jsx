import { useEffect, useRef, useState } from "react";
import { bff } from "/bff/client.js";
import { said } from "./answer.js";

// Countdown warns a minute before the session ends: because nobody uses it, or for good. With a short idle timeout it
// waits for the last third.
export function Countdown({ session, askSession, onLogOut }) {
  const { expires_in: lifetime, idle_expires_in: idle } = session.session;
  const forGood = lifetime <= idle;
  const end = session.receivedAt + Math.min(lifetime, idle) * 1000;
  const notice = forGood ? 60 : Math.min(60, session.longestIdle / 3);
  const left = useSecondsLeft(end, notice, askSession);

  const dialog = useRef();
  const goOn = useRef();
  const [dismissed, setDismissed] = useState(); // the session whose end the user knows of
  const [problem, setProblem] = useState();
  const open = left <= notice && dismissed !== session.session.created_at;
  useEffect(() => {
    if (!open) {
      dialog.current.close();
      return;
    }
    dialog.current.showModal();
    goOn.current.focus();
  }, [open]);
  useEffect(() => {
    if (!open) return undefined;
    const title = document.title;
    document.title = `${left} s left · ${title}`; // for users who are in another tab
    return () => { document.title = title; };
  }, [open, left]);

  const attempt = async (what) => {
    try {
      await what();
      setProblem();
      await askSession();
    } catch (err) {
      setProblem(said(err));
    }
  };
  const stay = () => attempt(() => bff.stay());
  const again = () => attempt(() => bff.login({ popup: true }));
  const later = () => setDismissed(session.session.created_at);
  const cancel = (event) => {
    event.preventDefault(); // the dialog follows the session
    if (forGood) later();
    else stay();
  };
  return (
    <dialog ref={dialog} className="countdown" aria-labelledby="countdown-title" onCancel={cancel}>
      <p className="clock" aria-hidden="true">{left}</p>
      <h2 id="countdown-title">{forGood ? "Your login is about to expire" : "Are you still there?"}</h2>
      <p>
        {left > 0 ? `You will be logged out in ${left} s. ` : "You will be logged out any moment. "}
        {forGood && "A login lasts for a limited time: log in again to go on."}
      </p>
      {/* A screen reader hears this at its start and near the end, not every second. */}
      <p className="unseen" role="status">{open && (left > 20 ? "Less than a minute left." : "Less than 20 seconds left.")}</p>
      {problem && <p className="problem" role="alert">{problem}</p>}
      <div className="buttons">
        <button onClick={onLogOut}>Log out</button>
        {forGood && <button onClick={later}>Not now</button>}
        {forGood
          ? <button ref={goOn} className="primary" onClick={again}>Log in again</button>
          : <button ref={goOn} className="primary" onClick={stay}>Stay logged in</button>}
      </div>
    </dialog>
  );
}

// useSecondsLeft counts down from notice on. Before that, and every five seconds on the way, it asks what is really left:
// using the app, here or in another tab, has moved the end.
function useSecondsLeft(end, notice, askSession) {
  const [now, setNow] = useState(Date.now);
  const left = Math.max(0, Math.ceil((end - now) / 1000));
  const near = left <= notice;
  useEffect(() => {
    if (!near) {
      const look = async () => {
        await askSession();
        setNow(Date.now());
      };
      const wait = Math.max(0, end - notice * 1000 - Date.now());
      const timer = setTimeout(look, Math.min(wait + 50, 2 ** 31 - 1)); // browsers take a longer one for none
      return () => clearTimeout(timer);
    }
    let ticks = 0;
    const timer = setInterval(() => {
      setNow(Date.now());
      ticks += 1;
      if (ticks % 5 === 0 || Date.now() >= end) askSession();
    }, 1000);
    return () => clearInterval(timer);
  }, [end, notice, near, askSession]);
  return left;
}
