// What an SPA behind the gateway does: it asks who is there, and builds the login link so that query and fragment come back.
const answer = await fetch('/bff/session', { headers: { 'X-CSRF': '1' } });
const me = await answer.json();
document.querySelector('#who').textContent = me.authenticated ? me.user.name : 'nobody';
const link = document.querySelector(me.authenticated ? '#logout' : '#login');
link.href = me.authenticated
  ? me.logout_url
  : `${me.login_url}?returnUrl=${encodeURIComponent(location.pathname + location.search + location.hash)}`;
link.hidden = false;
document.body.dataset.ready = 'true';
