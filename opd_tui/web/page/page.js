// The token has become a cookie; it need not stand in the address, nor in the history, any longer.
history.replaceState(null, "", "/");
addEventListener("DOMContentLoaded", () => {
  document.getElementById("again").addEventListener("click", () => location.reload());
});
