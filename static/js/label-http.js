// @ts-check

export function readCsrfToken() {
  return document.cookie.match(/(?:^|; )csrftoken=([^;]*)/)?.[1] ?? "";
}

/**
 * Throws where the network fails; null means that nobody is signed in.
 * @param {string} url
 * @param {URLSearchParams | Record<string, string> | [string, string][]} body
 * @returns {Promise<Response | null>}
 */
export async function postForm(url, body) {
  const response = await fetch(url, {
    method: "POST",
    body: new URLSearchParams(body),
    redirect: "manual",
    headers: { "X-CSRFToken": readCsrfToken(), Accept: "application/json" },
  });
  const isSignedOut = response.type === "opaqueredirect" || (await isCsrfFailure(response));
  return isSignedOut ? null : response;
}

/**
 * The same, with null where the network fails too.
 * @param {string} url
 * @param {URLSearchParams | Record<string, string> | [string, string][]} body
 * @returns {Promise<Response | null>}
 */
export async function tryPostForm(url, body) {
  try {
    return await postForm(url, body);
  } catch {
    return null;
  }
}

// Without the cookie of a session the server does not read what it gets.
/** @param {Response} response */
async function isCsrfFailure(response) {
  if (response.status !== 403) return false;
  const answer = await response
    .clone()
    .json()
    .catch(() => ({}));
  return answer.code === "csrf_failed";
}
