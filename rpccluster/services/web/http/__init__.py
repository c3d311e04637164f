"""HTTP as the page needs it: what is asked and answered, who may ask, and the server. Runs in the page's process."""
