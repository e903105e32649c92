// Asks the server, with the token if there is one, and says in one sentence what went wrong.

const TOKEN = "pocketnets-token"; // in sessionStorage, which ends with the tab

export class Failure extends Error {
  constructor(detail, status = null) {
    super(detail);
    this.status = status;
    this.passes = status === 0 || status === 429 || status >= 500; // trying again may help
  }
}

export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export async function ask(path, options) {
  const headers = new Headers(options.headers);
  const token = sessionStorage.getItem(TOKEN);
  let response, text;
  try {
    if (token) headers.set("Authorization", `Bearer ${token}`);
    response = await fetch(path, { ...options, headers, cache: "no-store" });
    text = await response.text();
  } catch {
    throw new Failure("The server cannot be reached.", 0);
  }
  const answer = parse(text);
  if (response.ok && answer) return answer;
  const detail = answer?.detail ?? `The server answered with status ${response.status}.`;
  throw new Failure(detail, response.status);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // a proxy's own page, say
  }
}
