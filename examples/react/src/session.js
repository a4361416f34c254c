// Who is logged in, and why somebody no longer is.
import { useCallback, useEffect, useState } from "react";
import { bff } from "/bff/client.js";

// useSession returns what the gateway says about the session, and a function to ask it again: undefined until the first
// answer came, then its JSON, as it changes in this tab or in any other. Asking never keeps a session alive.
export function useSession() {
  const [session, setSession] = useState();

  const keep = useCallback((me) => {
    setSession((former) => ({ ...me, receivedAt: Date.now(), longestIdle: longest(former, me) }));
  }, []);
  const ask = useCallback(async () => {
    try {
      const me = await bff.session(); // never throws for an anonymous user, but for an outage
      keep(me);
    } catch {
      setSession((former) => former ?? { unreachable: true });
    }
  }, [keep]);

  useEffect(() => {
    const stop = bff.onSession(keep);
    ask();
    return stop;
  }, [ask, keep]);
  return [session, ask];
}

// longest is the most idle time that was ever left in this session: about what the gateway allows.
function longest(former, { session }) {
  const same = former?.session?.created_at === session?.created_at;
  return Math.max(same ? former?.longestIdle ?? 0 : 0, session?.idle_expires_in ?? 0);
}

export const goodbye = "/goodbye"; // where a logout comes back to

const reasons = {
  idle_timeout: "You were away for a while, so we logged you out to keep your account safe.",
  lifetime: "A login lasts for a limited time, and yours has reached its end.",
  logout: "See you soon.",
  backchannel: "You logged out of your account in another app.",
  frontchannel: "You logged out of your account in another app.",
  revoked: "This device was logged out from another one, or by an administrator.",
  refresh_rejected: "Your login provider asks you to log in again.",
  token_expired: "Your login provider asks you to log in again.",
  replaced: "You logged in again, and the newer login took the place of this one.",
};

// inWords says why a session ended, or nothing if there was none.
export const inWords = (reason) => reasons[reason];
