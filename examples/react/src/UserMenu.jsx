import { Link } from "./route.jsx";

// The menu is a popover: the browser closes it on Escape and on a click elsewhere.
export function UserMenu({ user, onLogOut }) {
  const name = user.name ?? user.preferred_username ?? user.email ?? user.sub;
  const close = () => document.getElementById("user-menu").hidePopover();
  return (
    <>
      <button className="user" popoverTarget="user-menu" aria-label={`Your account, ${name}`}>
        <Avatar name={name} />
        <span className="name">{name}</span>
        <span className="chevron" aria-hidden="true" />
      </button>
      <div id="user-menu" popover="auto" className="menu">
        <div className="who">
          <Avatar name={name} />
          <p>
            <strong>{name}</strong>
            {user.email && <span className="soft">{user.email}</span>}
          </p>
        </div>
        <Link to="/devices" onClickCapture={close}>My devices</Link>
        <button onClick={onLogOut}>Log out</button>
      </div>
    </>
  );
}

function Avatar({ name }) {
  const words = name.split(/\s+/).filter(Boolean);
  const initials = [words.at(0), words.length > 1 && words.at(-1)].filter(Boolean).map((word) => [...word][0]);
  return <span className="avatar" aria-hidden="true">{initials.join("").toUpperCase()}</span>;
}
