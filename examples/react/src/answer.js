// answer reads an API's JSON, and throws what a user can be told if the API said no.
export async function answer(response) {
  if (response.ok) return response.status === 204 ? undefined : response.json();
  const { title, error } = await response.json().catch(() => ({}));
  throw new Error(title ?? error ?? `The answer was ${response.status}.`);
}

// said is what to show of an error: those of the network say nothing that helps.
export const said = (err) => (
  err instanceof TypeError || err.code === "network" ? "There is no connection. Please try again." : err.message
);
